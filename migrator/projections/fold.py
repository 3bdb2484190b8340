"""Fold events into rows, in memory. Pure: no I/O, no clock; the same events give the same rows.

A row here is no SQLAlchemy object: each projection gets a plain class with slots, made of its columns
and its own methods, since millions of rows are held and changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from migrator.projections.definition import Check, Definition, Projection
from migrator.projections.events import TOMBSTONE, Meta


class Unhandled(Exception):
    """An event type that neither a handler nor `ignores` names."""

    def __init__(self, projection: str, event_type: str) -> None:
        super().__init__(f"{projection} has no handler for {event_type}")
        self.projection = projection
        self.event_type = event_type


class NoKey(Exception):
    """A record whose row cannot be told."""


class Fold:
    """The rows of one projection as far as the events applied so far make them."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.rows: dict[Hashable, Any] = {}
        self._new = row_class(definition)
        self._ignores = definition.ignores
        self._handlers = {
            event_type: (handler.function, handler.takes_meta)
            for event_type, handler in definition.handlers.items()
        }
        self._key_of = definition.key

    def wants(self, event_type: str) -> bool:
        """Whether a handler folds this type.

        Raises:
            Unhandled: neither a handler nor `ignores` names it.
        """
        if event_type in self._handlers:
            return True
        if event_type in self._ignores or event_type == TOMBSTONE:
            return False
        raise Unhandled(self.definition.name, event_type)

    def apply(self, event_type: str, event: Any, key: str | None, meta: Callable[[], Meta]) -> None:
        """Fold one wanted event into its row, which is made where there is none.

        Raises:
            NoKey: the record's key is absent or is none of this projection's.
        """
        row_key = self._key_of(event) if self._key_of is not None else self._parsed(key)
        row = self.rows.get(row_key)
        if row is None:
            row = self.rows[row_key] = self._new(row_key)
        function, takes_meta = self._handlers[event_type]
        if takes_meta:
            function(row, event, meta())
        else:
            function(row, event)
        if row.is_deleted:
            del self.rows[row_key]

    def bury(self, key: str | None, meta: Callable[[], Meta]) -> None:
        """Fold a tombstone: the row goes, or its own handler says otherwise.

        Raises:
            NoKey: the projection takes its key from the event, and a tombstone has none.
        """
        if TOMBSTONE in self._handlers:
            self.apply(TOMBSTONE, None, key, meta)
        elif TOMBSTONE not in self._ignores:
            if self._key_of is not None:
                raise NoKey(
                    "a tombstone has no event to take the key from; ignores = (Tombstone,)?"
                )
            self.rows.pop(self._parsed(key), None)

    def _parsed(self, key: str | None) -> Hashable:
        if key is None:
            raise NoKey("the record has no key")
        assert self.definition.parse_key is not None
        try:
            return self.definition.parse_key(key)
        except ValueError:
            raise NoKey(f"the record's key {key!r} does not fit the primary key") from None


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
