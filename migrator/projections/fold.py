"""Fold events into rows, in memory. Pure: no I/O, no clock; the same events give the same rows.

A row here is no SQLAlchemy object: each projection gets a plain class with slots, made of its columns
and its own methods, since millions of rows are held and changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from migrator.projections.definition import Check, Definition, Handler, Projection
from migrator.projections.events import TOMBSTONE, Meta


class Unhandled(Exception):
    """An event type that neither a handler nor `ignores` names."""

    def __init__(self, projection: str, event_type: str) -> None:
        super().__init__(f"{projection} has no handler for {event_type}")
        self.projection = projection
        self.event_type = event_type


class NoKey(Exception):
    """A record whose row cannot be told."""


RawKey = bytes | str | None
Step = Callable[[Any, RawKey, Any, Any], None]


class Fold:
    """The rows of one projection as far as the events applied so far make them.

    `rows` is keyed as the records are, by bytes where the key is text: a key is decoded once a row,
    not once an event. `meta(record, envelope)` makes a Meta for the handlers that take one.
    """

    def __init__(self, definition: Definition, meta: Callable[[Any, Any], Meta]) -> None:
        self.definition = definition
        self.rows: dict[Hashable, Any] = {}
        self._meta = meta
        self._new = row_class(definition)

    def step(self, event_type: str) -> Step | None:
        """Make the function that folds events of this type, or None where they are ignored.

        It is called with the event, the record's key, the record and its envelope; it raises NoKey.

        Raises:
            Unhandled: neither a handler nor `ignores` names the type.
        """
        handler = self.definition.handlers.get(event_type)
        if handler is not None:
            return self._step(handler)
        if event_type in self.definition.ignores:
            return None
        if event_type == TOMBSTONE:
            return self._bury
        raise Unhandled(self.definition.name, event_type)

    def _step(self, handler: Handler) -> Step:
        rows, get, row_key, new = self.rows, self.rows.get, self._row_key(), self._row
        function, meta = handler.function, self._meta if handler.takes_meta else None

        def step(event: Any, raw_key: RawKey, record: Any, envelope: Any) -> None:
            key = raw_key if row_key is None else row_key(event, raw_key)
            row = get(key)
            if row is None:
                row = rows[key] = new(key)
            if meta is None:
                function(row, event)
            else:
                function(row, event, meta(record, envelope))
            if row.is_deleted:
                del rows[key]

        return step

    def _bury(self, _event: Any, raw_key: RawKey, _record: Any, _envelope: Any) -> None:
        """Fold a tombstone without a handler: the row goes."""
        row_key = self._row_key()
        self.rows.pop(raw_key if row_key is None else row_key(None, raw_key), None)

    def _row_key(self) -> Callable[[Any, RawKey], Hashable] | None:
        """How a record's row is found; None where the record's key as it stands will do."""
        key_of = self.definition.key
        if key_of is not None:
            return lambda event, _raw: _own_key(key_of, event)
        if self.definition.parse_key is str:
            return None
        return lambda _event, raw: self._parsed(raw)

    def _row(self, key: Hashable) -> Any:
        if self.definition.key is None and isinstance(key, bytes | str | None):
            return self._new(self._parsed(key))
        return self._new(key)

    def _parsed(self, raw: RawKey) -> Hashable:
        if raw is None:
            raise NoKey("the record has no key")
        text = raw.decode() if isinstance(raw, bytes) else raw
        assert self.definition.parse_key is not None
        try:
            return self.definition.parse_key(text)
        except ValueError:
            raise NoKey(f"the record's key {text!r} does not fit the primary key") from None


def _own_key(key_of: Callable[[Any], Hashable], event: Any) -> Hashable:
    if event is None:
        raise NoKey("a tombstone has no event to take the key from; ignores = (Tombstone,)?")
    return key_of(event)


def row_class(definition: Definition) -> Callable[[Hashable], Any]:
    """Make the plain class of a projection's rows: `row_class(definition)(key)` is a fresh row."""
    namespace: dict[str, Any] = {
        "__slots__": (*definition.attributes, "is_deleted"),
        "__init__": _initialiser(definition),
        "delete": _delete,
    }
    for base in reversed(definition.cls.__mro__):
        if base not in (Projection, object):
            namespace.update({k: v for k, v in vars(base).items() if _belongs_to_rows(k, v)})
    return type(definition.cls.__name__, (), namespace)


def _belongs_to_rows(name: str, member: Any) -> bool:
    return not (
        (name.startswith("__") and name.endswith("__"))
        or name.startswith("_sa_")
        or name in ("ignores", "metadata", "registry")
        or isinstance(member, InstrumentedAttribute | Check)
    )


def _delete(row: Any) -> None:
    row.is_deleted = True


def _initialiser(definition: Definition) -> Callable[[Any, Hashable], None]:
    """Write `__init__` as straight-line code: it runs once a row."""
    lines, known = ["def __init__(self, key):", "    self.is_deleted = False"], {}
    defaults = {
        definition.cls.__mapper__.get_property_by_column(column).key: column.default  # type: ignore[attr-defined]
        for column in definition.table.columns
    }
    for attribute in definition.attributes:
        default = defaults[attribute]
        if default is None:
            value = "None"
        else:
            value = f"default_{attribute}" + ("(None)" if default.is_callable else "")
            known[f"default_{attribute}"] = getattr(default, "arg", None)
        lines.append(f"    self.{attribute} = {value}")
    targets = ", ".join(f"self.{attribute}" for attribute in definition.key_attributes)
    lines.append(f"    {targets} = key")
    scope: dict[str, Any] = dict(known)
    exec("\n".join(lines), scope)  # noqa: S102 - attribute names are identifiers of the user's class
    initialiser: Callable[[Any, Hashable], None] = scope["__init__"]
    return initialiser
