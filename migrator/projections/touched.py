"""The keys that events between two positions touch, read from the log."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from migrator.kafka import topics
from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Slice, read_in_turn
from migrator.projections.build import Position
from migrator.projections.decoding import BatchDecoder, Undecodable
from migrator.projections.definition import Definition
from migrator.projections.diff_columns import NotCompared
from migrator.projections.events import TOMBSTONE
from migrator.projections.fold import Fold

if TYPE_CHECKING:
    from migrator.settings import Settings

MEMORY_BYTES = 32_000_000
_NO_EVENT = SimpleNamespace(payload=None)

Gaps = dict[str, list[Slice]]


@dataclass
class Touched:
    """The keys that some stretches of the log touch; `events` counts what was read."""

    keys: set[Hashable] = field(default_factory=set)
    events: int = 0


def between(ours: Sequence[Position], theirs: Sequence[Position]) -> Gaps:
    """What of each topic one of two builds has read and the other has not, on either side. Pure.

    A partition that only one of them knows is a gap from its beginning on, whose start is 0.

    Raises:
        NotCompared: they have read different topics.
    """
    names, others = ({p.topic for p in each} for each in (ours, theirs))
    if names != others:
        raise NotCompared(
            f"the live build is folded from topic {', '.join(sorted(others))}, "
            f"the new one from {', '.join(sorted(names))}"
        )
    ids: dict[str, str] = {}
    for each in (*ours, *theirs):
        if ids.setdefault(each.topic, each.topic_id) != each.topic_id:
            raise NotCompared(f"topic {each.topic} was made anew between the two builds")
    reached = [{(p.topic, p.partition): p.next_offset for p in each} for each in (ours, theirs)]
    gaps: Gaps = {}
    for topic, number in sorted({*reached[0], *reached[1]}):
        low, high = sorted(each.get((topic, number), 0) for each in reached)
        if low < high:
            gaps.setdefault(topic, []).append(Slice(number, low, high))
    return gaps


def keys_touched(settings: Settings, definition: Definition, gaps: Gaps, most: int) -> Touched:
    """Read the gaps, and tell which keys their events fold into.

    Raises:
        NotCompared: they are more than `most`, or the log no longer has all of the gaps.
        MigratorError: a partition cannot be read.
    """
    found = Touched()
    for topic, slices in gaps.items():
        keys = _Keys(settings, definition, topic)
        for records in _read(settings, topic, slices):
            found.keys |= keys.of(records)
            found.events += len(records)
            if len(found.keys) > most:
                raise NotCompared(
                    f"the two builds are too far apart: more than {most:,} keys are touched by "
                    "events that only one of them has read ([projections] diff_max_touched)"
                )
    return found


def _read(settings: Settings, topic: str, slices: Sequence[Slice]) -> Iterator[list[Message]]:
    kafka = quiet(settings.kafka_config)
    now = topics.describe(settings.kafka_config, topic)
    lows = {p.partition: p.low for p in now.partitions}
    for each in slices:
        if lows.get(each.partition, 0) > each.start > 0:
            raise NotCompared(
                f"the log no longer has what lies between the two builds: partition "
                f"{each.partition} of topic {topic} begins at {lows[each.partition]}, "
                f"and one of them has read to {each.start}"
            )
    held = [Slice(s.partition, max(s.start, lows.get(s.partition, 0)), s.end) for s in slices]
    limits = Limits(memory_bytes=MEMORY_BYTES, quiet_s=settings.projections.no_progress_s)
    with closing(read_in_turn(kafka, topic, held, limits=limits, topic_id=now.id)) as turns:
        for _, batches in turns:
            yield from batches


class _Keys:
    """Tells the keys of a topic's records; where they are the records' own, nothing is decoded."""

    def __init__(self, settings: Settings, definition: Definition, topic: str) -> None:
        self._fold = Fold(definition)
        self._is_own = definition.key is None
        events: dict[str, type | None] = {
            **dict.fromkeys(definition.ignores),
            **{name: handler.event for name, handler in definition.handlers.items()},
        }
        events.pop(TOMBSTONE, None)
        self._decoder = BatchDecoder(settings.topic(topic), events, with_meta=False)

    def of(self, records: Sequence[Message]) -> set[Hashable]:
        """The keys, each as its columns' values; records whose key cannot be told are left out."""
        try:
            keys, events = self._decoder.keys(records), self._events(records)
        except Undecodable:
            if len(records) == 1:
                return set()
            return {key for record in records for key in self.of([record])}
        found = (self._values(key) for key in self._fold.keys_of(keys, events))
        return {values for values in found if values is not None}

    def _events(self, records: Sequence[Message]) -> Sequence[Any]:
        return [_NO_EVENT] * len(records) if self._is_own else self._decoder.decode(records)

    def _values(self, key: Hashable) -> tuple[Any, ...] | None:
        """None for what no row can have as its key."""
        try:
            values = self._fold.key_values(key)
        except UnicodeDecodeError:
            return None
        no_text = any(isinstance(value, str) and "\x00" in value for value in values)
        return None if no_text or None in values else values


def by_column(touched: Touched) -> list[list[Any]]:
    """The keys as a list a column, as a query wants them."""
    return [list(values) for values in zip(*touched.keys, strict=True)]
