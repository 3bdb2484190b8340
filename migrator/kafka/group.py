"""Share partitions with other processes by a consumer group: what is ours, and what comes of it.

The group says who reads which partition, and nothing else: where a partition is read from is for the
caller to say, each time that it has become ours. What was gathered while that changed is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from migrator.errors import CannotConnect, MigratorError
from migrator.kafka import lost
from migrator.kafka.client import consumer_config, quiet
from migrator.kafka.log import END_OF_PARTITION
from migrator.logs import logger

Place = tuple[str, int]
"""A topic and the number of a partition."""

# A killed member's partitions are given to others when it has been silent for so long.
SESSION_TIMEOUT_MS = 10_000
# What no waiting heals: the offset or the topic is gone, or we may not.
_FINAL = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's own names
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    }
)


@dataclass
class Gathered:
    """A micro-batch: each partition's records in the log's order, and how far it is known to be read.

    `ends` are offsets that librdkafka has reached, control records included.
    """

    records: dict[Place, list[Message]] = field(default_factory=dict)
    ends: dict[Place, int] = field(default_factory=dict)

    @property
    def events(self) -> int:
        return sum(map(len, self.records.values()))


class Group:
    """A member of a group; joins with the first `gather`, leaves at the end of the `with` block.

    `assigned` are the partitions that are ours now; `is_moved` says that they have changed since `place`.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        name: str,
        topics: Mapping[str, str],
        *,
        memory_bytes: int = 67_108_864,
    ) -> None:
        self.assigned: frozenset[Place] = frozenset()
        self.is_moved = False
        self._kafka = kafka
        self._ids = topics
        self._trouble = ""
        config = consumer_config(quiet(dict(kafka)), prefetch_kib=memory_bytes // 1024)
        usual = {"session.timeout.ms": SESSION_TIMEOUT_MS}
        self._consumer = Consumer(
            {
                **usual,
                **config,
                "group.id": name,
                # The same partitions of several topics go to one member.
                "partition.assignment.strategy": "range",
                "error_cb": self._heard,
            }
        )
        self._consumer.subscribe(
            list(topics), on_assign=self._given, on_revoke=self._taken, on_lost=self._taken
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def _heard(self, error: KafkaError) -> None:
        self._trouble = error.str()
        logger().debug("kafka", said=self._trouble)

    def _given(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        """Read nothing until the caller has said from where."""
        self.assigned = frozenset((part.topic, part.partition) for part in parts)
        self.is_moved = True
        consumer.assign([])

    def _taken(self, consumer: Consumer, _parts: list[TopicPartition]) -> None:
        self.assigned, self.is_moved = frozenset(), True
        consumer.unassign()

    def place(self, offsets: Mapping[Place, int]) -> None:
        """Read our partitions from these offsets on; what was fetched before is forgotten."""
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
        self.is_moved = False

    def gather(self, most: int, wait_s: float, linger_s: float) -> Gathered:
        """Wait for a record, then for more, up to `most` or for `linger_s`.

        Where our partitions change meanwhile, `is_moved` is set and nothing is returned.

        Raises:
            CannotConnect, MigratorError: the log cannot be read, and waiting would not help.
        """
        try:
            messages = self._consumer.consume(1, wait_s)
            deadline = time.monotonic() + linger_s
            while messages and len(messages) < most and not self.is_moved:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                messages += self._consumer.consume(most - len(messages), left)
        except KafkaException as exc:
            raise MigratorError(
                f"topic {' and '.join(self._ids)} cannot be read: {exc.args[0]}",
                next_step="look at the brokers, then start it again",
            ) from exc
        gathered = Gathered()
        if not self.is_moved:
            for message in messages:
                self._take(message, gathered)
        return gathered

    def _take(self, message: Message, gathered: Gathered) -> None:
        error, place = message.error(), (message.topic() or "", message.partition() or 0)
        if error is None:
            gathered.records.setdefault(place, []).append(message)
        elif error.code() == END_OF_PARTITION:
            gathered.ends[place] = message.offset() or 0
        elif error.code() in _FINAL or error.fatal():
            raise self._explained(place, message.offset() or 0, error)
        else:
            self._heard(error)

    def _explained(self, place: Place, offset: int, error: KafkaError) -> MigratorError:
        topic, partition = place
        if not topic:
            return CannotConnect(
                f"Kafka does not let us read: {error.str()}",
                next_step="correct the rights of the client; see docs/follow.md",
            )
        return lost.explain(
            self._kafka, topic, partition, offset, error, topic_id=self._ids.get(topic)
        )

    def lag(self, offsets: Mapping[Place, int]) -> dict[Place, int | None]:
        """How many offsets lie between these and the partitions' ends; None: not heard of yet."""
        found: dict[Place, int | None] = {}
        for place, offset in offsets.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            found[place] = max(high - offset, 0) if high >= 0 else None
        return found

    def tell(self, offsets: Mapping[Place, int]) -> None:
        """Commit the offsets to the group for those who watch its lag; nobody reads from them."""
        parts: Sequence[Any] = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        if parts:
            with suppress(KafkaException):  # we may be leaving; it is for onlookers alone
                self._consumer.commit(offsets=list(parts), asynchronous=True)
