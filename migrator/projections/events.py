"""What a projection folds: events, and what is known of a record beside its payload."""

from __future__ import annotations

from datetime import datetime
from typing import Any, dataclass_transform

import msgspec


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class EventClass(msgspec.StructMeta):
    """Takes `type=` where the event's type in the log is not the name of the class."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,  # noqa: A002 - the word of the log
        **config: Any,
    ) -> Any:
        namespace["__event_type__"] = type or name
        # gc=False: events hold no cycles, and the collector would walk millions of them.
        config = {"kw_only": True, "frozen": True, "gc": False} | config
        return super().__new__(mcls, name, bases, namespace, **config)


class Event(msgspec.Struct, metaclass=EventClass):
    """Base of the event classes: the payload's schema, of which only declared fields are decoded.

        class OrderPlaced(Event):
            customer_id: str
            total_cents: int

    The class's name is the event's type; `class Fine(Event, type="Create Fine")` says another.
    A payload field of another name is declared with `msgspec.field(name="case:channel")`.
    """


class Tombstone:
    """A record without a value: it deletes the row, unless a handler `@on(Tombstone)` is there."""


TOMBSTONE = "Tombstone"


class Meta(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Where an event lies in the log.

    `timestamp` is the event's time where [topics] says where it lies, else the record's; order by
    the log, never by it.
    """

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    type: str
    key: str | None = None
    id: str | None = None


def type_of(event: type) -> str:
    """The event type that a class stands for."""
    return TOMBSTONE if event is Tombstone else str(event.__event_type__)  # type: ignore[attr-defined]
