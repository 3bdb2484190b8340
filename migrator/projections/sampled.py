"""The first events of a partition, as a sample whose folds need nothing that came before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Message

from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Part, Slice, read_together
from migrator.kafka.topics import TopicRange
from migrator.settings import Topic

if TYPE_CHECKING:
    from migrator.settings import Settings

EVENTS = 500
MEMORY_BYTES = 4_000_000


@dataclass(frozen=True)
class Sample:
    """Records in the order in which they fold, and how those of each topic are to be read."""

    topics: dict[str, Topic]
    partition: int
    records: list[Message]

    @property
    def told(self) -> str:
        return f"the first {len(self.records):,} events of partition {self.partition}"


def first_events(settings: Settings, topics: Sequence[TopicRange]) -> Sample | None:
    """Read up to 500 events from the beginning of the longest partition, of each of the topics.

    None where there are none. Where topics are merged, the sample ends where the first of them does.

    Raises:
        MigratorError: the partition cannot be read.
    """
    part = _longest(topics)
    if part is None:
        return None
    kafka = quiet(settings.kafka_config)
    limits = Limits(memory_bytes=MEMORY_BYTES, quiet_s=settings.projections.no_progress_s)
    ids = {topic.name: topic.id for topic in topics}
    with closing(read_together(kafka, ids, [part], limits=limits)) as turns:
        records = [record for _, batches in turns for batch in batches for record in batch]
    own = {topic.name: settings.topic(topic.name) for topic in topics}
    return Sample(own, part[0].partition, records) if records else None


def _longest(topics: Sequence[TopicRange]) -> Part | None:
    parts: list[Part] = [
        tuple(Slice(p.partition, p.low, p.end) for p in same)
        for same in zip(*(topic.partitions for topic in topics), strict=True)
    ]
    longest = max(parts, key=lambda part: sum(s.end - s.start for s in part), default=())
    part = tuple(Slice(s.partition, s.start, min(s.end, s.start + EVENTS)) for s in longest)
    return part if any(s.start < s.end for s in part) else None
