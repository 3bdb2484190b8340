"""Read partitions of a topic from given offsets to captured ends, each record once.

`assign()`, never a consumer group: positions live in PostgreSQL beside the rows. read_committed: what
an aborted transaction wrote is never seen. A partition ends at its captured offset, which on a
transactional topic is often reached without a record: control records occupy offsets that are never
delivered, so the end is a record at or past the last offset, or librdkafka's end-of-partition mark.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from migrator.errors import MigratorError

END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own names
ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
BATCH = 1000
POLL_S = 0.1
READ_AHEAD = 2
QUIET_LIMIT_S = 120.0
PREFETCH_KIB = 131_072


@dataclass(frozen=True)
class Slice:
    """A stretch of one partition: [start, end)."""

    partition: int
    start: int
    end: int


def consumer_config(kafka: Mapping[str, object]) -> dict[str, Any]:
    """The properties of a reader that reads exactly what it is told to."""
    return {
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 1_000_000,
        "queued.max.messages.kbytes": PREFETCH_KIB,
        "fetch.message.max.bytes": 8_388_608,
        **kafka,
        # A group id is demanded even where no group is joined; nothing is ever committed to it.
        "group.id": f"migrator-{uuid.uuid4()}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }


def read_in_turn(
    kafka: Mapping[str, object], topic: str, slices: Sequence[Slice]
) -> Iterator[tuple[Slice, Iterator[list[Message]]]]:
    """Yield each slice with its batches of records, the next partition being fetched meanwhile.

    Within a slice records come in order, each once, and none at or past its end.

    Raises:
        MigratorError: a partition cannot be read, or nothing came for two minutes.
    """
    readers: deque[_Reader] = deque()
    left = deque(slices)
    try:
        while left or readers:
            while left and len(readers) < READ_AHEAD:
                readers.append(_Reader(kafka, topic, left.popleft()))
            reader = readers[0]
            yield reader.part, reader.batches()
            readers.popleft().close()
    except KafkaException as exc:
        raise MigratorError(f"topic {topic} cannot be read: {exc.args[0]}", topic=topic) from exc
    finally:
        for reader in readers:
            reader.close()


class _Reader:
    """Fetches one slice from the moment it is made."""

    def __init__(self, kafka: Mapping[str, object], topic: str, part: Slice) -> None:
        self.part = part
        self._topic = topic
        self._consumer = Consumer(consumer_config(kafka))
        if part.start < part.end:
            self._consumer.assign([TopicPartition(topic, part.partition, part.start)])

    def close(self) -> None:
        self._consumer.close()

    def batches(self) -> Iterator[list[Message]]:
        position, end, quiet_s = self.part.start, self.part.end, 0.0
        while position < end:
            # Asking for more than is left would wait for it.
            messages = self._consumer.consume(min(BATCH, end - position), timeout=POLL_S)
            records = [message for message in messages if message.error() is None]
            if len(records) != len(messages):
                position = max(position, self._reached(messages))
            if records:
                position = max(position, _offset(records[-1]) + 1)
                if position > end:
                    records = [record for record in records if _offset(record) < end]
                quiet_s = 0.0
                yield records
            elif not messages:
                quiet_s += POLL_S
                if quiet_s >= QUIET_LIMIT_S:
                    raise self._quiet()

    def _reached(self, messages: list[Message]) -> int:
        """How far an end-of-partition mark says that everything has been delivered."""
        reached = 0
        for message in messages:
            error = message.error()
            if error is None:
                continue
            if error.code() == END_OF_PARTITION:
                reached = max(reached, _offset(message))
            elif not error.retriable() and error.code() != ALL_BROKERS_DOWN:
                raise _unreadable(self._topic, message.partition(), message.offset(), error)
        return reached

    def _quiet(self) -> MigratorError:
        return MigratorError(
            f"nothing came from partition {self.part.partition} of topic {self._topic} "
            f"for {QUIET_LIMIT_S:.0f} s",
            expected=f"records up to offset {self.part.end}",
            next_step="look at the brokers, then run the same command again: it resumes",
            topic=self._topic,
            partition=self.part.partition,
        )


def _offset(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset


def _unreadable(
    topic: str, partition: int | None, offset: int | None, error: KafkaError
) -> MigratorError:
    return MigratorError(
        f"partition {partition} of topic {topic} cannot be read at offset {offset}: {error.str()}",
        expected="every record from the build's start to its captured end",
        topic=topic,
        partition=partition,
        offset=offset,
    )
