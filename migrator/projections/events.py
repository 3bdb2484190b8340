"""What a projection folds: events, and what is known of a record beside its payload."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar, dataclass_transform

import msgspec

from migrator.errors import UsageError

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
Function = TypeVar("Function", bound=Upcaster)


class DefinitionError(UsageError):
    """A projection's class, or one of its events, says something that cannot be."""

    code = "definition"


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class EventClass(msgspec.StructMeta):
    """Takes `type=` where the event's type in the log is not the name of the class, and `version=`."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | tuple[str, ...] | None = None,  # noqa: A002 - the word of the log
        version: int = 1,
        **config: Any,
    ) -> Any:
        if not _is_whole(version) or version < 1:
            raise DefinitionError(
                f"event {name} says version={version!r}", expected="a whole number, from 1"
            )
        types = (type or name,) if isinstance(type or name, str) else tuple(type or ())
        namespace |= {"__event_types__": types, "__event_version__": version, "__upcasters__": {}}
        # gc=False: events hold no cycles, and the collector would walk millions of them.
        config = {"kw_only": True, "frozen": True, "gc": False} | config
        return super().__new__(mcls, name, bases, namespace, **config)


class Event(msgspec.Struct, metaclass=EventClass):
    """Base of the event classes: the payload's schema, of which only declared fields are decoded.

        class OrderPlaced(Event):
            customer_id: str
            total_cents: int

    The class's name is the event's type; `class Fine(Event, type="Create Fine")` says another, and
    `type=("Create Fine", "Fine Created")` several. `class Fine(Event, version=2)` says which version
    of the payload the class is; `@upcast` lifts older ones. A payload field of another name is
    declared with `msgspec.field(name="case:channel")`.
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


def shown_key(key: object) -> object:
    """A record's key as text, as far as it is; for messages."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key


def types_of(event: type) -> tuple[str, ...]:
    """The event types that a class stands for."""
    return (TOMBSTONE,) if event is Tombstone else event.__event_types__  # type: ignore[attr-defined]


def version_of(event: type) -> int:
    """The version of the payload that a class declares."""
    return getattr(event, "__event_version__", 1)


def upcasters_of(event: type) -> dict[int, Upcaster]:
    """The functions that lift a payload of a version to the next one, by the version they take."""
    return getattr(event, "__upcasters__", {})


def upcast(event: type, *, from_version: int) -> Callable[[Function], Function]:
    """Make a function the upcaster of a payload from `from_version` to the next version.

        @upcast(OrderShipped, from_version=1)
        def add_carrier(payload: dict) -> dict:
            return {**payload, "carrier": "unknown"}

    Chains run from the version that a record has to the one of the class. It is pure, as handlers
    are, and is given a dict of its own, so that it may change it.

    Raises:
        DefinitionError: `event` is no event class, has no such older version, or has another
            upcaster from it; or the function is not one of a module, so that no hash can hold it.
    """
    name = getattr(event, "__name__", event)
    if not isinstance(event, EventClass):
        raise DefinitionError(
            f"@upcast({name}) is no event", expected="a subclass of migrator.Event"
        )
    current = version_of(event)
    if not _is_whole(from_version) or not 0 < from_version < current:
        older = "none: the class has no version=" if current == 1 else f"1 to {current - 1}"
        raise DefinitionError(
            f"@upcast({name}, from_version={from_version!r}), but {name} is of version {current}",
            expected=f"an older version: {older}",
        )

    def mark(function: Function) -> Function:
        _check_upcaster(f"the upcaster of {name} from version {from_version}", function)
        known = upcasters_of(event).get(from_version)
        if known is not None and not _is_reload(known, function):
            raise DefinitionError(
                f"{name} has two upcasters from version {from_version}: "
                f"{known.__name__} and {function.__name__}",
                expected="one upcaster a version",
            )
        upcasters_of(event)[from_version] = function
        return function

    return mark


def _check_upcaster(which: str, function: Any) -> None:
    if not inspect.isfunction(function) or "." in function.__qualname__ or "<" in function.__name__:
        raise DefinitionError(
            f"{which} is {getattr(function, '__qualname__', function)!r}",
            expected="a function of a module, by its name",
        )
    if len(inspect.signature(function).parameters) != 1:
        raise DefinitionError(f"{which} does not take one parameter", expected="(payload)")


def _is_reload(known: Any, function: Any) -> bool:
    """The same module read anew, over an event class that was not."""
    same_module = known.__module__ == function.__module__
    return same_module and known.__globals__ is not function.__globals__


def check_upcasters(events: Iterable[type]) -> None:
    """Refuse chains with a gap: what an upcaster lifts must reach the version of the class.

    Raises:
        DefinitionError: a chain does not; it names the versions that have no upcaster.
    """
    for event in events:
        known, current = upcasters_of(event), version_of(event)
        gaps = [v for v in range(min(known, default=current), current) if v not in known]
        if gaps:
            raise DefinitionError(
                f"the upcasters of {event.__name__} do not lead from version {min(known)} to "
                f"{current}: none takes version {', '.join(map(str, gaps))}",
                expected=f"@upcast({event.__name__}, from_version={gaps[0]})",
            )
