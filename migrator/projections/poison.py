"""An event that cannot be decoded or folded: what is kept of it, and how its trouble is told. Pure."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message

from migrator.errors import MigratorError, Refused
from migrator.kafka.envelope import NoEnvelope
from migrator.projections.decoding import UnknownType
from migrator.projections.events import shown_key
from migrator.projections.fold import NoKey, Unhandled

_OURS = str(Path(__file__).parent.parent)


@dataclass(frozen=True)
class Poison:
    """A record as the log has it, with what was wrong with it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None
    timestamp: datetime | None
    type: str | None
    error: str

    @property
    def place(self) -> str:
        return place(self.topic, self.partition, self.offset, self.key)


def poison(record: Message, event_type: str | None, cause: Exception) -> Poison:
    """Keep a record and what it was stopped by."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Poison(
        topic=topic,
        partition=partition,
        offset=offset,
        key=_bytes(record.key()),
        headers=tuple((name, _bytes(value)) for name, value in record.headers() or ()),
        value=_bytes(record.value()),
        timestamp=_time(record),
        type=event_type,
        error=_said(cause, event_type)[0],
    )


def is_poison(cause: BaseException | None) -> bool:
    """Whether the event is to blame: not a definition that lacks a handler, nor what lies around."""
    return not isinstance(cause, Unhandled | UnknownType | MigratorError | MemoryError)


def place(topic: str | None, partition: int | None, offset: int | None, key: object) -> str:
    """Where an event lies, for a message."""
    return f"topic {topic}, partition {partition}, offset {offset}, key {shown_key(key)!r}"


def named(exc: Exception, record: Message, event_type: str | None) -> MigratorError:
    """The trouble as an error, with the place in the log where it lies."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    where = place(topic, partition, offset, record.key())
    data: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "key": shown_key(record.key()),
    }
    match exc:
        case MigratorError():
            return exc
        case Unhandled():
            return Refused(
                f"{exc.projection} has no handler for {exc.event_type!r} ({where})",
                expected="a method with @on, or the type in ignores",
                next_step=f'add @on(...) to the projection, or ignores = ("{exc.event_type}",)',
                event_type=exc.event_type,
                projection=exc.projection,
                **data,
            )
    found, step = _said(exc, event_type)
    return MigratorError(
        f"{found} ({where})",
        next_step=f"{step}, then run the same command again; live is untouched",
        **data,
    )


def _said(exc: Exception, event_type: str | None) -> tuple[str, str]:
    """What was found, and what to correct."""
    match exc:
        case NoEnvelope() | UnicodeDecodeError() | msgspec.MsgspecError():
            of_type = "" if event_type is None else f"{event_type}: "
            step = getattr(exc, "next_step", "") or (
                "correct the event class or [topics] in migrator.toml"
            )
            return f"an event does not decode: {of_type}{exc}", step
        case NoKey():
            return str(exc), "correct the projection's key"
    return (
        f"a handler failed: {type(exc).__name__}: {exc}{_line(exc)}",
        "correct the handler",
    )


def _line(exc: Exception) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(("<", _OURS))]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def _time(record: Message) -> datetime | None:
    is_there, timestamp = record.timestamp()
    # A producer may have written any number.
    with suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(timestamp / 1000, UTC) if is_there else None
    return None


def _bytes(raw: bytes | str | None) -> bytes | None:
    return raw.encode() if isinstance(raw, str) else raw
