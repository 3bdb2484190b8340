"""Look at a topic: whether it is there, its partitions, and how far each may be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from migrator.errors import MigratorError, UsageError
from migrator.kafka.client import cannot_connect, consumer_config, quiet, reason

TIMEOUT_S = 10.0


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
