"""Fold events into rows, in memory. Pure: no I/O, no clock; the same events give the same rows.

A row here is no SQLAlchemy object: each projection gets a plain class with slots, made of its columns
and its own methods, since millions of rows are held and changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
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


class Unfoldable(Exception):
    """An event that a fold stopped at; its cause says why."""

    def __init__(self, record: Any, event_type: str) -> None:
        super().__init__()
        self.record = record
        self.type = event_type


RawKey = bytes | str | None
_RAW = (bytes, str, type(None))
MakeMeta = Callable[[Any, RawKey, Any], Meta]
BatchFold = Callable[[Sequence[RawKey], Sequence[Any], Sequence[Any]], None]
Hold = Callable[[Any, str, Exception], None]


class Fold:
    """The rows of one projection as far as the events applied so far make them.

    `rows` is keyed as the records are, by bytes where the key is text: a key is decoded once a row,
    not once an event. Where not all rows are in memory, `fetch(keys)` brings those of a batch's keys
    there before it is folded.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.rows: dict[Hashable, Any] = {}
        self.fetch: Callable[[Iterable[Hashable]], None] | None = None
        self.takes_meta = any(handler.takes_meta for handler in definition.handlers.values())
        self._new = row_class(definition)
        self._is_text = definition.key is None and definition.parse_key is str
        self._restore = [_restorer(type_) for _, type_ in definition.columns]

    def compiled(self, kinds: Mapping[str, type], meta: MakeMeta) -> BatchFold:
        """Make the function that folds a batch: `fold(keys, events, records)`.

        The three go in step. An event is of one of the `kinds`, by its type, and has a `payload`;
        `meta(record, key, event)` makes a Meta for the handlers that take one. It raises
        Unfoldable, whose cause is NoKey, Unhandled, or what the handler raised.
        """
        handlers = self.definition.handlers
        functions = {kind: self._function(event_type) for event_type, kind in kinds.items()}
        known: dict[str, Any] = {
            "rows": self.rows,
            "get": self.rows.get,
            "new": self._row,
            "row_key": self._row_key(),
            "functions": functions,
            "with_meta": {k for t, k in kinds.items() if t in handlers and handlers[t].takes_meta},
            "meta": meta,
            "Unfoldable": Unfoldable,
        }
        source = _batch_fold(has_row_key=known["row_key"] is not None, takes_meta=self.takes_meta)
        exec(source, known)  # noqa: S102 - our own text
        fold: BatchFold = known["fold"]
        return fold

    def careful(self, kinds: Mapping[str, type], meta: MakeMeta, hold: Hold) -> BatchFold:
        """Make the slower function that goes on behind an event that does not fold.

        Each event folds into a copy of its row, so that one that stops half way has changed nothing;
        it is left out, and `hold(record, event_type, cause)` is told. Unhandled stops this one, too.
        """
        handlers = self.definition.handlers
        functions = {kind: self._function(event_type) for event_type, kind in kinds.items()}
        with_meta = {k for t, k in kinds.items() if t in handlers and handlers[t].takes_meta}
        row_key = self._row_key()

        def fold_one(raw: RawKey, event: Any, record: Any) -> None:
            kind: Any = event.__class__
            function = functions[kind]
            if function is None:
                return
            key = row_key(event.payload, raw) if row_key else raw
            found = self.rows.get(key)
            row = self._row(key) if found is None else self._copied(found)
            if kind in with_meta:
                function(row, event.payload, meta(record, raw, event))
            else:
                function(row, event.payload)
            if row.is_deleted:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

        def fold(keys: Sequence[RawKey], events: Sequence[Any], records: Sequence[Any]) -> None:
            for raw, event, record in zip(keys, events, records, strict=True):
                try:
                    fold_one(raw, event, record)
                except Unhandled as exc:
                    raise Unfoldable(record, event.type) from exc
                except Exception as exc:  # noqa: BLE001 - whatever a handler raises
                    hold(record, event.type, exc)

        return fold

    def _copied(self, row: Any) -> Any:
        copied = object.__new__(self._new)
        for name in self._new.__slots__:
            value = getattr(row, name)
            setattr(copied, name, value if value.__class__ in _SCALARS else copy.deepcopy(value))
        return copied

    def keys_of(self, keys: Sequence[RawKey], events: Sequence[Any]) -> set[Hashable]:
        """The keys in `rows` that a batch's events fold into; what has none is left out."""
        row_key = self._row_key()
        found: set[Hashable] = set()
        if row_key is None:
            return found.union(keys) - {None}
        for key, event in zip(keys, events, strict=True):
            with suppress(Exception):  # the fold itself names it, or ignores the event
                found.add(row_key(event.payload, key))
        return found

    def key_values(self, key: Hashable) -> tuple[Any, ...]:
        """The values of the primary key's columns that a key in `rows` stands for."""
        if isinstance(key, bytes) and self.definition.key is None:
            return (key.decode(),)
        if len(self.definition.key_attributes) == 1:
            return (key,)
        assert isinstance(key, tuple)
        return key

    def restored(self, values: Sequence[Any]) -> Any:
        """Make a row again of its columns' values, as PostgreSQL gives them."""
        row: Any = object.__new__(self._new)
        row.is_deleted = False
        for attribute, restore, value in zip(
            self.definition.attributes, self._restore, values, strict=True
        ):
            setattr(row, attribute, restore(value) if restore and value is not None else value)
        return row

    def _function(self, event_type: str) -> Callable[..., None] | None:
        """What is done to the row by an event of this type; None where it is ignored."""
        handler = self.definition.handlers.get(event_type)
        if handler is not None:
            return handler.function
        if event_type in self.definition.ignores:
            return None
        if event_type == TOMBSTONE and not self.definition.reduced:
            return _bury
        return self._refuse(event_type)

    def _refuse(self, event_type: str) -> Callable[..., None]:
        def refuse(*_: Any) -> None:
            raise Unhandled(self.definition.name, event_type)

        return refuse

    def _row_key(self) -> Callable[[Any, RawKey], Hashable] | None:
        """How a record's row is found; None where the record's key as it stands will do."""
        key_of = self.definition.key
        if key_of is not None:
            return lambda event, _raw: _own_key(key_of, event)
        if self.definition.parse_key is str:
            return None
        return lambda _event, raw: self._parsed(raw)

    def _row(self, key: Hashable) -> Any:
        # Asked in this order since it is so for nearly every new row.
        if key.__class__ is bytes and self._is_text:
            return self._new(key.decode())
        if self.definition.key is None and isinstance(key, _RAW):
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


_SCALARS = frozenset((str, int, bool, float, bytes, type(None)))


def _batch_fold(*, has_row_key: bool, takes_meta: bool) -> str:
    """Write `fold` as straight-line code: its loop runs once an event."""
    call = "function(row, event.payload)"
    lines = [
        "def fold(keys, events, records):",
        "    try:",
        "        for key, event, record in zip(keys, events, records):",
        "            function = functions[event.__class__]",
        "            if function is None:",
        "                continue",
        *(["            raw, key = key, row_key(event.payload, key)"] if has_row_key else []),
        "            row = get(key)",
        "            if row is None:",
        "                row = rows[key] = new(key)",
    ]
    if takes_meta:
        raw = "raw" if has_row_key else "key"
        lines += [
            "            if event.__class__ in with_meta:",
            f"                function(row, event.payload, meta(record, {raw}, event))",
            "            else:",
            f"                {call}",
        ]
    else:
        lines.append(f"            {call}")
    lines += [
        "            if row.is_deleted:",
        "                del rows[key]",
        "    except Exception as exc:",
        "        raise Unfoldable(record, event.type) from exc",
    ]
    return "\n".join(lines)


def _bury(row: Any, _event: None) -> None:
    """What a tombstone does that no handler takes."""
    row.delete()


def _own_key(key_of: Callable[[Any], Hashable], event: Any) -> Hashable:
    if event is None:
        raise NoKey("a tombstone has no event to take the key from; ignores = (Tombstone,)?")
    return key_of(event)


def _restorer(type_: sa.types.TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What makes the handlers' value of PostgreSQL's; None where they are the same."""
    enum = getattr(type_, "enum_class", None)
    return enum.__getitem__ if enum else None


def row_class(definition: Definition) -> type[Any]:
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
    for attribute, column in zip(definition.attributes, definition.state.columns, strict=True):
        default = column.default
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
