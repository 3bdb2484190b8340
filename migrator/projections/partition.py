"""Fold the records of one partition into the rows of every projection of a pass.

Records go through in batches: all of a batch is decoded, once for all projections that share their
event classes, and then folded projection by projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Message

from migrator.errors import MigratorError, Refused
from migrator.kafka.envelope import NoEnvelope
from migrator.projections.decoding import BatchDecoder, Undecodable, UnknownType
from migrator.projections.definition import Definition
from migrator.projections.events import TOMBSTONE, Meta
from migrator.projections.fold import BatchFold, Fold, NoKey, RawKey, Unfoldable, Unhandled
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


class PartitionFold:
    """The folds of one partition, one for each definition, in their order."""

    def __init__(self, topic: Topic, definitions: Sequence[Definition]) -> None:
        self.folds = [Fold(definition) for definition in definitions]
        self.events = 0
        with_meta = any(fold.takes_meta for fold in self.folds)
        self._passes = [
            _compiled(BatchDecoder(topic, group.events, with_meta=with_meta), group.folds)
            for group in _groups(self.folds)
        ]

    def apply(self, records: Sequence[Message]) -> None:
        """Fold the records in their order.

        Raises:
            MigratorError: one cannot be decoded or folded; it names where it lies.
            Refused: no handler takes an event's type.
        """
        try:
            keys = self._passes[0][0].keys(records)
            for decoder, folds in self._passes:
                events = decoder.decode(records)
                for fold, apply in folds:
                    if fold.fetch:
                        fold.fetch(fold.keys_of(keys, events))
                    apply(keys, events, records)
        except (Undecodable, Unfoldable) as exc:
            raise self._named(exc) from exc.__cause__
        self.events += len(records)

    @property
    def rows(self) -> int:
        """How many rows are in memory, of all folds together."""
        return sum(len(fold.rows) for fold in self.folds)

    def _named(self, stopped: Undecodable | Unfoldable) -> MigratorError:
        cause = stopped.__cause__
        assert isinstance(cause, Exception)
        if isinstance(cause, UnknownType):
            cause = Unhandled(self.folds[0].definition.name, str(cause))
        return _named(cause, stopped.record, stopped.type)


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


def _compiled(
    decoder: BatchDecoder, folds: Sequence[Fold]
) -> tuple[BatchDecoder, tuple[tuple[Fold, BatchFold], ...]]:
    return decoder, tuple((fold, fold.compiled(decoder.kinds, _meta)) for fold in folds)


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


def _named(exc: Exception, record: Message, event_type: str | None) -> MigratorError:
    """The same trouble, with the place in the log where it lies."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    raw_key = record.key()
    key = raw_key.decode("utf-8", "replace") if isinstance(raw_key, bytes) else raw_key
    place = f"topic {topic}, partition {partition}, offset {offset}, key {key!r}"
    data: dict[str, Any] = {"topic": topic, "partition": partition, "offset": offset, "key": key}
    match exc:
        case MigratorError():
            return exc
        case Unhandled():
            return Refused(
                f"{exc.projection} has no handler for {exc.event_type!r} ({place})",
                expected="a method with @on, or the type in ignores",
                next_step=f'add @on(...) to the projection, or ignores = ("{exc.event_type}",)',
                event_type=exc.event_type,
                projection=exc.projection,
                **data,
            )
        case NoEnvelope() | UnicodeDecodeError() | msgspec.MsgspecError():
            of_type = "" if event_type is None else f"{event_type}: "
            found = f"an event does not decode: {of_type}{exc} ({place})"
            step = getattr(exc, "next_step", "") or (
                "correct the event class or [topics] in migrator.toml"
            )
        case NoKey():
            found, step = f"{exc} ({place})", "correct the projection's key"
        case _:
            found = f"a handler failed: {type(exc).__name__}: {exc} ({place})"
            step = "correct the handler"
    return MigratorError(
        found, next_step=f"{step}, then run the same command again; live is untouched", **data
    )
