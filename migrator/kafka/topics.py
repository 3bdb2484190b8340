"""Look at a topic: whether it is there, its partitions, and how far each may be read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from migrator.errors import MigratorError, UsageError
from migrator.kafka.client import cannot_connect, consumer_config, quiet, reason

TIMEOUT_S = 10.0
LOOK_S = 0.25


@dataclass(frozen=True)
class PartitionRange:
    """What a partition holds at one instant: [low, end), end being the last stable offset."""

    partition: int
    low: int
    end: int


@dataclass(frozen=True)
class TopicRange:
    name: str
    id: str
    partitions: tuple[PartitionRange, ...]

    @property
    def events(self) -> int:
        """At most so many events: control records and compaction leave gaps."""
        return sum(p.end - p.low for p in self.partitions)


def describe(kafka: Mapping[str, str], name: str, *, timeout_s: float = TIMEOUT_S) -> TopicRange:
    """Capture the topic's id and each partition's offsets, as a read_committed reader sees them.

    Raises:
        CannotConnect: no broker answers within `timeout_s`.
        UsageError: there is no such topic; the nearest names are in the message.
    """
    admin = AdminClient(quiet(kafka))
    names = _names(admin, kafka, timeout_s)
    if name not in names:
        raise UsageError.unknown("topic", name, [n for n in names if not n.startswith("__")])
    try:
        answer = admin.describe_topics(TopicCollection([name]), request_timeout=timeout_s)
        described = answer[name].result()
        reader = Consumer(consumer_config(quiet(kafka)))
        try:
            ranges = [
                _range(reader, name, partition.id, timeout_s) for partition in described.partitions
            ]
        finally:
            reader.close()
    except KafkaException as exc:
        raise MigratorError(f"topic {name} cannot be read: {reason(exc)}", topic=name) from exc
    return TopicRange(
        name, str(described.topic_id), tuple(sorted(ranges, key=lambda r: r.partition))
    )


@dataclass(frozen=True)
class Policy:
    """What the broker does with old records; None where it does not do so."""

    cleanup: frozenset[str]
    retention_ms: int | None
    retention_bytes: int | None
    delete_retention_ms: int


def policy(kafka: Mapping[str, str], name: str, *, timeout_s: float = TIMEOUT_S) -> Policy | None:
    """The topic's settings, or None where the client may not read them."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    admin = AdminClient(quiet(kafka))
    try:
        answer = admin.describe_configs([resource], request_timeout=timeout_s)
        found = answer[resource].result()
    except KafkaException:
        return None
    said = {key: entry.value for key, entry in found.items()}
    return Policy(
        frozenset(each.strip() for each in said["cleanup.policy"].split(",")),
        _limit(said["retention.ms"]),
        _limit(said["retention.bytes"]),
        int(said["delete.retention.ms"]),
    )


def _limit(said: str) -> int | None:
    return int(said) if int(said) >= 0 else None


def written(kafka: Mapping[str, str], topic: TopicRange) -> dict[int, int]:
    """How far each partition is written, open transactions included: the high watermark.

    Raises:
        MigratorError: the broker does not say.
    """
    admin = AdminClient(quiet(kafka))
    wanted = {
        TopicPartition(topic.name, p.partition): OffsetSpec.latest() for p in topic.partitions
    }
    try:
        answer = admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=TIMEOUT_S
        )
        return {part.partition: said.result().offset for part, said in answer.items()}
    except KafkaException as exc:
        raise MigratorError(
            f"topic {topic.name} cannot be read: {reason(exc)}", topic=topic.name
        ) from exc


def stuck(kafka: Mapping[str, str], topic: TopicRange, wait_s: float) -> dict[int, tuple[int, int]]:
    """The partitions whose last stable offset stays behind what is written for `wait_s`.

    Each with the two offsets. An open transaction is nothing uncommon, one that does not move is;
    where there is none, it does not wait.
    """
    deadline = time.monotonic() + wait_s
    ends = {p.partition: p.end for p in topic.partitions}
    high = written(kafka, topic)
    held = {p: (end, high[p]) for p, end in ends.items() if high[p] > end}
    while held and time.monotonic() < deadline:
        time.sleep(min(LOOK_S, max(deadline - time.monotonic(), 0)))
        now = {p.partition: p.end for p in describe(kafka, topic.name).partitions}
        held = {p: pair for p, pair in held.items() if now[p] == pair[0]}
    return held


def count(kafka: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> int:
    """How many topics the cluster has, Kafka's own apart.

    Raises:
        CannotConnect: no broker answers within `timeout_s`.
    """
    names = _names(AdminClient(quiet(kafka)), kafka, timeout_s)
    return sum(not name.startswith("__") for name in names)


def _names(admin: AdminClient, kafka: Mapping[str, str], timeout_s: float) -> set[str]:
    try:
        return set(admin.list_topics(timeout=timeout_s).topics)
    except KafkaException as exc:
        raise cannot_connect(kafka, exc) from exc


def _range(reader: Consumer, topic: str, partition: int, timeout_s: float) -> PartitionRange:
    low, end = reader.get_watermark_offsets(
        TopicPartition(topic, partition), timeout=timeout_s, cached=False
    )
    return PartitionRange(partition, low, end)
