"""Read partitions of a topic from given offsets to captured ends, each record once.

`assign()`, never a consumer group: positions live in PostgreSQL beside the rows. read_committed: what
an aborted transaction wrote is never seen. A partition ends at its captured offset, which on a
transactional topic is often reached without a record: control records occupy offsets that are never
delivered, so the end is a record at or past the last offset, or librdkafka's end-of-partition mark.

A broker that goes away and comes back is waited for; what ends the reading is an offset that the log
no longer has, or a partition of which nothing comes for too long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from heapq import merge
from itertools import chain, islice

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from migrator.errors import MigratorError
from migrator.kafka import lost
from migrator.kafka.client import consumer_config
from migrator.kafka.throttle import Throttle

END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own names
BATCH = 1000
POLL_S = 0.1
READ_AHEAD = 2
LOOK_S = 2.0
QUIET_LIMIT_S = 120.0


@dataclass(frozen=True)
class Slice:
    """A stretch of one partition: [start, end)."""

    partition: int
    start: int
    end: int


Part = tuple[Slice, ...]
"""The same partition of several topics: a slice of each, in the topics' order."""


@dataclass(frozen=True)
class Limits:
    """What one worker's reading may take.

    `memory_bytes` is for records read ahead, over all partitions that are read at a time;
    `bytes_per_s` counts keys and values as they are after decompression.
    """

    memory_bytes: int = 268_435_456
    bytes_per_s: float | None = None
    quiet_s: float = QUIET_LIMIT_S

    @property
    def prefetch_kib(self) -> int:
        """The share of one reader. Throttled, what is read ahead must not be a burst of its own."""
        share = self.memory_bytes // 1024 // READ_AHEAD
        if self.bytes_per_s is not None:
            share = min(share, int(self.bytes_per_s / 1024))
        return max(share, 64)


def read_in_turn(
    kafka: Mapping[str, object],
    topic: str,
    slices: Sequence[Slice],
    *,
    limits: Limits = Limits(),
    topic_id: str | None = None,
) -> Generator[tuple[Slice, Iterator[list[Message]]]]:
    """Yield each slice with its batches of records, the next partition being fetched meanwhile.

    Within a slice records come in order, each once, and none at or past its end. `topic_id`, where
    it is known, lets an error tell a topic that was made anew from one that was cut.

    Raises:
        MigratorError: a partition cannot be read, or nothing came of it for `limits.quiet_s`.
    """
    with closing(
        read_together(kafka, {topic: topic_id}, [(part,) for part in slices], limits=limits)
    ) as turns:
        for (part,), batches in turns:
            yield part, batches


def read_together(
    kafka: Mapping[str, object],
    topics: Mapping[str, str | None],
    parts: Sequence[Part],
    *,
    limits: Limits = Limits(),
) -> Generator[tuple[Part, Iterator[list[Message]]]]:
    """As `read_in_turn`, of several topics at a time: the same partition of each is merged.

    `topics` are their names and ids. Records of one topic stay in the log's order; of two topics the
    one with the lower timestamp goes first, and of equal ones the one of the topic named first. So
    what follows hangs on the offsets that were reached alone: a reading that stopped goes on alike.
    """
    readers: deque[tuple[Part, list[_Reader]]] = deque()
    left = deque(parts)
    throttle = Throttle(limits.bytes_per_s) if limits.bytes_per_s else None
    share = replace(limits, memory_bytes=limits.memory_bytes // len(topics))
    try:
        while left or readers:
            while left and len(readers) < READ_AHEAD:
                part = left.popleft()
                own: list[_Reader] = []
                readers.append((part, own))
                for (topic, topic_id), each in zip(topics.items(), part, strict=True):
                    own.append(_Reader(kafka, topic, each, share, topic_id))
            part, own = readers[0]
            yield part, _merged([reader.batches(throttle) for reader in own])
            for reader in readers.popleft()[1]:
                reader.close()
    except KafkaException as exc:
        names = " and ".join(topics)
        raise MigratorError(f"topic {names} cannot be read: {exc.args[0]}", topic=names) from exc
    finally:
        for reader in chain.from_iterable(own for _, own in readers):
            reader.close()


def _merged(streams: Sequence[Iterator[list[Message]]]) -> Iterator[list[Message]]:
    if len(streams) == 1:
        return streams[0]
    records = merge(*map(chain.from_iterable, streams), key=_timestamp)
    return iter(lambda: list(islice(records, BATCH)), [])


def _timestamp(record: Message) -> int:
    _, milliseconds = record.timestamp()
    return int(milliseconds)


class _Reader:
    """Fetches one slice from the moment it is made."""

    def __init__(
        self,
        kafka: Mapping[str, object],
        topic: str,
        part: Slice,
        limits: Limits,
        topic_id: str | None,
    ) -> None:
        self.part = part
        self._kafka = kafka
        self._topic = topic
        self._topic_id = topic_id
        self._quiet_s = limits.quiet_s
        self._trouble = ""
        config = consumer_config(kafka, prefetch_kib=limits.prefetch_kib)
        self._consumer = Consumer({**config, "error_cb": self._heard})
        if part.start < part.end:
            self._consumer.assign([TopicPartition(topic, part.partition, part.start)])

    def close(self) -> None:
        self._consumer.close()

    def _heard(self, error: KafkaError) -> None:
        """Keep what librdkafka says of brokers that do not answer; it goes on trying by itself."""
        self._trouble = error.str()

    def batches(self, throttle: Throttle | None) -> Iterator[list[Message]]:
        position, end = self.part.start, self.part.end
        quiet = _Quiet(self._quiet_s)
        while position < end:
            # Asking for more than is left would wait for it.
            messages = self._consumer.consume(min(BATCH, end - position), timeout=POLL_S)
            records = [message for message in messages if message.error() is None]
            if len(records) != len(messages):
                position = max(position, self._reached(messages, position))
            if records:
                position = max(position, _offset(records[-1]) + 1)
                if position > end:
                    records = [record for record in records if _offset(record) < end]
                if throttle is not None:
                    throttle.took(sum(map(_size, records)))
                yield records
                quiet = _Quiet(self._quiet_s)
            elif quiet.is_time_to_look():
                self._look(position, quiet)

    def _reached(self, messages: list[Message], position: int) -> int:
        """How far an end-of-partition mark says that everything has been delivered."""
        reached = 0
        for message in messages:
            error = message.error()
            if error is None:
                continue
            if error.code() == END_OF_PARTITION:
                reached = max(reached, _offset(message))
            else:
                raise lost.explain(
                    self._kafka,
                    self._topic,
                    self.part.partition,
                    max(position, _last(messages) + 1),
                    error,
                    topic_id=self._topic_id,
                )
        return reached

    def _look(self, position: int, quiet: _Quiet) -> None:
        """Find out why nothing comes; librdkafka waits silently where a topic is deleted."""
        change = lost.change(
            self._kafka, self._topic, self.part.partition, position, topic_id=self._topic_id
        )
        # A broker that has just started may not know all of its topics yet: it is asked twice.
        if change is not None and quiet.change_was_seen:
            raise change
        quiet.change_was_seen = change is not None
        if quiet.is_over():
            raise change or self._stalled(position)

    def _stalled(self, position: int) -> MigratorError:
        said = f"; the client last said: {self._trouble}" if self._trouble else ""
        return MigratorError(
            f"nothing came from partition {self.part.partition} of topic {self._topic} "
            f"for {self._quiet_s:g} s, at offset {position}{said}",
            expected=f"records up to offset {self.part.end}",
            next_step="look at the brokers, then run the same command again: it resumes",
            topic=self._topic,
            partition=self.part.partition,
            offset=position,
        )


class _Quiet:
    """A time in which nothing comes from a partition that is not at its end."""

    def __init__(self, limit_s: float) -> None:
        self.change_was_seen = False
        self._limit_s = limit_s
        self._began = time.monotonic()
        self._next_look_s = min(LOOK_S, limit_s)

    def is_time_to_look(self) -> bool:
        if time.monotonic() - self._began < self._next_look_s:
            return False
        self._next_look_s = min(self._next_look_s + LOOK_S, max(self._limit_s, LOOK_S))
        return True

    def is_over(self) -> bool:
        return time.monotonic() - self._began >= self._limit_s


def _offset(message: Message) -> int:
    offset = message.offset()
    return -1 if offset is None else offset


def _last(messages: list[Message]) -> int:
    """The last offset that was delivered beside an error, or -1."""
    return max((_offset(m) for m in messages if m.error() is None), default=-1)


def _size(message: Message) -> int:
    return len(message.value() or b"") + len(message.key() or b"")
