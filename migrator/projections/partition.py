"""Fold the records of one partition into the rows of every projection of a pass.

This is the one loop that runs once an event, so it does as little as it can: what an event type
means is looked up once and kept as a route; a payload is decoded once for all projections that share
its class; a `Meta` is made only for a handler that takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Message

from migrator.errors import MigratorError, Refused
from migrator.kafka.decode import Envelope, NoEnvelope, Opener
from migrator.projections.definition import Definition
from migrator.projections.events import TOMBSTONE, Meta
from migrator.projections.fold import Fold, NoKey, RawKey, Step, Unhandled
from migrator.projections.payload import payload_decoder
from migrator.settings import Topic

Route = tuple[tuple[Callable[[Any], Any], tuple[Step, ...]], ...]


class PartitionFold:
    """The folds of one partition, one for each definition, in their order."""

    def __init__(self, topic: Topic, definitions: Sequence[Definition]) -> None:
        self.folds = [Fold(definition, _meta) for definition in definitions]
        self.events = 0
        self._opener = Opener(topic, {e for each in definitions for e in each.event_classes})
        self._routes: dict[str, Route] = {}

    def apply(self, records: Sequence[Message]) -> None:
        """Fold the records in their order.

        Raises:
            MigratorError: one cannot be decoded or folded; it names where it lies.
            Refused: no handler takes an event's type.
        """
        plain, routes = self._opener.plain, self._routes
        record = envelope = None
        try:
            for record in records:
                envelope = None
                value = record.value()
                if value is None:
                    self._bury(record)
                    continue
                envelope = plain(value) if plain else self._opener.open(value, record.headers)
                route = routes.get(envelope.type)
                if route is None:
                    route = routes[envelope.type] = self._route(envelope.type)
                for decode, steps in route:
                    event = decode(envelope.payload)
                    for step in steps:
                        step(event, record.key(), record, envelope)
        except Exception as exc:
            assert record is not None
            raise _named(exc, record, envelope) from exc
        self.events += len(records)

    def _route(self, event_type: str) -> Route:
        """Which decoders and steps an event type takes; made when the type is first met."""
        steps: dict[type, list[Step]] = {}
        for fold in self.folds:
            step = fold.step(event_type)
            if step is not None:
                handler = fold.definition.handlers[event_type]
                steps.setdefault(handler.event, []).append(step)
        is_plain = self._opener.plain is not None
        return tuple(
            (payload_decoder(event, is_plain=is_plain), tuple(each))
            for event, each in steps.items()
        )

    def _bury(self, record: Message) -> None:
        tombstone = Envelope(TOMBSTONE, None, None, None)
        for fold in self.folds:
            step = fold.step(TOMBSTONE)
            if step is not None:
                step(None, record.key(), record, tombstone)


def _meta(record: Message, envelope: Any) -> Meta:
    _, timestamp = record.timestamp()
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Meta(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=envelope.time or datetime.fromtimestamp(timestamp / 1000, UTC),
        type=envelope.type,
        key=_text(record.key()),
        id=None if envelope.id is None else str(envelope.id),
    )


def _text(key: RawKey) -> str | None:
    return key.decode() if isinstance(key, bytes) else key


def _named(exc: Exception, record: Message, envelope: Any) -> MigratorError:
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
            of_type = "" if envelope is None else f"{envelope.type}: "
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
