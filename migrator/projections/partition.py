"""Fold the records of one partition into the rows of every projection of a pass.

Records go through in batches: all of a batch is decoded, once for all projections that share their
event classes, and then folded projection by projection. Where several topics are merged, each run of
records of one topic is decoded as that topic's.

Where events may be put into quarantine, one that does not decode is left out of its batch. One that
does not fold may have changed half of its row, of which the fast fold keeps no copy: the partition is
then folded anew from its last commit, by the careful one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from confluent_kafka import Message

from migrator.errors import MigratorError
from migrator.projections.decoding import BatchDecoder, Undecodable, UnknownType
from migrator.projections.definition import Definition
from migrator.projections.events import TOMBSTONE, Meta
from migrator.projections.fold import BatchFold, Fold, Hold, RawKey, Unfoldable, Unhandled
from migrator.projections.poison import Poison, is_poison, named, poison
from migrator.settings import Topic


@dataclass
class _Group:
    """Folds that share their event classes, and so one decoding."""

    events: dict[str, type | None]
    folds: list[Fold]

    def takes(self, events: dict[str, type | None]) -> bool:
        """Whether the classes of both are the same, as far as both name a type's."""
        return all(
            self.events.get(event_type) in (None, event) or event is None
            for event_type, event in events.items()
        )

    def add(self, fold: Fold, events: dict[str, type | None]) -> None:
        self.folds.append(fold)
        for event_type, event in events.items():
            self.events[event_type] = event or self.events.get(event_type)


class NeedsCare(Exception):
    """An event did not fold and may be left out: the rows of this fold are of no use any more."""


class Full(Exception):
    """One event more may not be left out: `stopped` names it, `before` are those that are."""

    def __init__(self, stopped: MigratorError, before: Sequence[Poison]) -> None:
        super().__init__()
        self.stopped = stopped
        self.before = tuple(before)


Pass = tuple[BatchDecoder, list[tuple[Fold, BatchFold]]]


@dataclass(frozen=True)
class _Run:
    """Events of one topic, one after the other, decoded for the folds that share their classes."""

    keys: list[RawKey]
    events: list[Any]
    records: Sequence[Message]
    folds: list[tuple[Fold, BatchFold]]


class PartitionFold:
    """The folds of one partition, one for each definition, in their order.

    `topics` are the names of the topics that the partition is read from, and how each is to be read;
    `events` counts the events of each, and `reached` is the next offset of each that was read.

    `room` says how many events each of them may go without; where it is None, the first one stops.
    What they go without is in `held`, fold by fold, until the caller has taken it.
    """

    def __init__(
        self,
        topics: Mapping[str, Topic],
        definitions: Sequence[Definition],
        *,
        room: Sequence[int] | None = None,
        careful: bool = False,
    ) -> None:
        self.folds = [Fold(definition) for definition in definitions]
        self.events = Counter(dict.fromkeys(topics, 0))
        self.reached: dict[str, int] = {}
        self.room = room
        self.held: list[list[Poison]] = [[] for _ in self.folds]
        self._careful = careful
        with_meta = any(fold.takes_meta for fold in self.folds)
        groups = _groups(self.folds)
        self._passes: dict[str, list[Pass]] = {
            name: [
                self._compiled(BatchDecoder(topic, group.events, with_meta=with_meta), group.folds)
                for group in groups
            ]
            for name, topic in topics.items()
        }

    def apply(self, records: Sequence[Message]) -> None:
        """Fold the records in their order.

        Raises:
            MigratorError: one cannot be decoded or folded; it names where it lies.
            Refused: no handler takes an event's type.
            NeedsCare: one cannot be folded, and may be left out by a careful fold.
            Full: one cannot be decoded or folded, and there is no room for it.
        """
        try:
            runs = [
                run for topic, own in self._topics(records) for run in self._decoded(topic, own)
            ]
            _fetch(runs)
            for run in runs:
                for _, apply in run.folds:
                    apply(run.keys, run.events, run.records)
        except (Undecodable, Unfoldable) as exc:
            if self.room is not None and is_poison(exc.__cause__):
                raise NeedsCare from exc.__cause__
            raise self._named(exc) from exc.__cause__

    def _topics(self, records: Sequence[Message]) -> Iterator[tuple[str, Sequence[Message]]]:
        if len(self._passes) == 1:
            yield next(iter(self._passes)), records
        else:
            for topic, run in groupby(records, lambda record: record.topic() or ""):
                yield topic, list(run)

    def _decoded(self, topic: str, records: Sequence[Message]) -> Iterator[_Run]:
        passes = self._passes[topic]
        keys, readable = self._keys(passes[0][0], records)
        if len(self._passes) > 1:  # a key may be bytes in one topic, and decoded text in another
            keys = [key.encode() if isinstance(key, str) else key for key in keys]
        for decoder, folds in passes:
            yield _Run(*self._sound(decoder, folds, keys, readable), folds)
        self.events[topic] += len(records)
        if records:
            self.reached[topic] = (records[-1].offset() or 0) + 1

    def _keys(
        self, decoder: BatchDecoder, records: Sequence[Message]
    ) -> tuple[list[RawKey], Sequence[Message]]:
        try:
            return decoder.keys(records), records
        except Undecodable as exc:
            if not self._may_hold(exc):
                raise
        sound: list[tuple[RawKey, Message]] = []
        for record in records:
            try:
                sound.append((decoder.keys([record])[0], record))
            except Undecodable as exc:
                self._hold(self.folds, exc)
        return [key for key, _ in sound], [record for _, record in sound]

    def _sound(
        self,
        decoder: BatchDecoder,
        folds: Sequence[tuple[Fold, BatchFold]],
        keys: list[RawKey],
        records: Sequence[Message],
    ) -> tuple[list[RawKey], list[Any], Sequence[Message]]:
        """The events with their keys and records, without those that are put into quarantine."""
        try:
            return keys, decoder.decode(records), records
        except Undecodable as exc:
            if not self._may_hold(exc):
                raise
        sound: list[tuple[RawKey, Any, Message]] = []
        for key, record in zip(keys, records, strict=True):
            try:
                sound.append((key, decoder.decode([record])[0], record))
            except Undecodable as exc:
                self._hold([fold for fold, _ in folds], exc)
        return [key for key, _, _ in sound], [e for _, e, _ in sound], [r for _, _, r in sound]

    def _may_hold(self, exc: Undecodable) -> bool:
        return self.room is not None and is_poison(exc.__cause__)

    def _hold(self, folds: Sequence[Fold], exc: Undecodable | Unfoldable) -> None:
        """Put an event into the quarantine of every fold that would have folded it."""
        cause = exc.__cause__
        if self.room is None or not is_poison(cause):
            raise exc
        assert isinstance(cause, Exception)
        kept = poison(exc.record, exc.type, cause)
        for number, fold in enumerate(self.folds):
            takes = exc.type is None or exc.type in fold.definition.handlers
            if not takes or not any(fold is each for each in folds):
                continue
            if len(self.held[number]) >= self.room[number]:
                raise Full(named(cause, exc.record, exc.type), self.held[number])
            self.held[number].append(kept)

    def _compiled(
        self, decoder: BatchDecoder, folds: Sequence[Fold]
    ) -> tuple[BatchDecoder, list[tuple[Fold, BatchFold]]]:
        if self._careful:
            return decoder, [(f, f.careful(decoder.kinds, _meta, self._held_by(f))) for f in folds]
        return decoder, [(fold, fold.compiled(decoder.kinds, _meta)) for fold in folds]

    def _held_by(self, fold: Fold) -> Hold:
        def hold(record: Message, event_type: str, cause: Exception) -> None:
            stopped = Unfoldable(record, event_type)
            stopped.__cause__ = cause
            self._hold([fold], stopped)

        return hold

    def forget(self) -> None:
        """Drop all rows: what folds them refers to itself, and the collector is off."""
        for fold in self.folds:
            fold.rows.clear()

    @property
    def rows(self) -> int:
        """How many rows are in memory, of all folds together."""
        return sum(len(fold.rows) for fold in self.folds)

    def _named(self, stopped: Undecodable | Unfoldable) -> MigratorError:
        cause = stopped.__cause__
        assert isinstance(cause, Exception)
        if isinstance(cause, UnknownType):
            cause = Unhandled(self.folds[0].definition.name, str(cause))
        return named(cause, stopped.record, stopped.type)


def _fetch(runs: Sequence[_Run]) -> None:
    """Bring the rows that a batch needs into memory, at one go."""
    wanted: dict[Fold, set[Hashable]] = {}
    for run in runs:
        for fold, _ in run.folds:
            if fold.fetch:
                wanted.setdefault(fold, set()).update(fold.keys_of(run.keys, run.events))
    for fold, keys in wanted.items():
        if fold.fetch:
            fold.fetch(keys)


def _groups(folds: Sequence[Fold]) -> list[_Group]:
    groups: list[_Group] = []
    for fold in folds:
        definition = fold.definition
        events: dict[str, type | None] = {
            **dict.fromkeys(definition.ignores),
            **{event_type: handler.event for event_type, handler in definition.handlers.items()},
        }
        events.pop(TOMBSTONE, None)
        group = next((g for g in groups if g.takes(events)), None)
        if group is None:
            groups.append(group := _Group({}, []))
        group.add(fold, events)
    return groups


def _meta(record: Message, key: RawKey, event: Any) -> Meta:
    _, timestamp = record.timestamp()
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Meta(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=event.time or datetime.fromtimestamp(timestamp / 1000, UTC),
        type=event.type,
        key=key.decode() if isinstance(key, bytes) else key,
        id=None if event.id is None else str(event.id),
    )
