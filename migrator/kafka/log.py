"""Read partitions of a topic from given offsets to captured ends, each record once.

`assign()`, never a consumer group: positions live in PostgreSQL beside the rows. read_committed: what
an aborted transaction wrote is never seen. A partition ends at its captured offset, which on a
transactional topic is often reached without a record: control records occupy offsets that are never
delivered, so the end is a record at or past the last offset, or librdkafka's end-of-partition mark.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
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
POLL_S = 0.2
QUIET_LIMIT_S = 120.0
PREFETCH_KIB = 131_072


@dataclass(frozen=True)
class Slice:
    """A stretch of one partition: [start, end)."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Batch:
    """Records in the log's order, of any of the partitions; `ended` says which are now complete."""

    records: list[Message]
    ended: tuple[int, ...] = ()


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


def read(kafka: Mapping[str, object], topic: str, slices: list[Slice]) -> Iterator[Batch]:
    """Yield the slices' records in batches until every slice has ended.

    Within a partition records come in order, each once; none at or past a slice's end is yielded.

    Raises:
        MigratorError: a partition cannot be read, or nothing came for two minutes.
    """
    ends = {s.partition: s.end for s in slices if s.start < s.end}
    yield Batch([], tuple(s.partition for s in slices if s.start >= s.end))
    if not ends:
        return
    reader = Consumer(consumer_config(kafka))
    try:
        reader.assign(
            [TopicPartition(topic, s.partition, s.start) for s in slices if s.start < s.end]
        )
        yield from _until_ended(reader, topic, ends)
    except KafkaException as exc:
        raise MigratorError(f"topic {topic} cannot be read: {exc.args[0]}", topic=topic) from exc
    finally:
        reader.close()


def _until_ended(reader: Consumer, topic: str, ends: dict[int, int]) -> Iterator[Batch]:
    quiet_s = 0.0
    while ends:
        batch = _sorted_out(reader.consume(BATCH, timeout=POLL_S), topic, ends)
        for partition in batch.ended:
            del ends[partition]
        if batch.ended:
            # Stop fetching what lies past the end.
            reader.incremental_unassign([TopicPartition(topic, p) for p in batch.ended])
        if batch.records or batch.ended:
            quiet_s = 0.0
            yield batch
            continue
        quiet_s += POLL_S
        if quiet_s >= QUIET_LIMIT_S:
            raise MigratorError(
                f"nothing came from topic {topic} for {QUIET_LIMIT_S:.0f} s",
                expected="records up to "
                + ", ".join(f"offset {end} of partition {p}" for p, end in sorted(ends.items())),
                next_step="look at the brokers, then run the same command again: it resumes",
                topic=topic,
            )


def _sorted_out(messages: list[Message], topic: str, ends: dict[int, int]) -> Batch:
    records: list[Message] = []
    ended: dict[int, None] = {}
    for message in messages:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None and error.code() != END_OF_PARTITION:
            if error.retriable() or error.code() == ALL_BROKERS_DOWN:
                continue
            raise _unreadable(topic, partition, offset, error)
        end = ends.get(partition if partition is not None else -1)
        if end is None or partition in ended or offset is None or offset == OFFSET_INVALID:
            continue
        if error is None and offset < end:
            records.append(message)
        if offset >= end or (error is None and offset == end - 1):
            ended[partition] = None
    return Batch(records, tuple(ended))


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
