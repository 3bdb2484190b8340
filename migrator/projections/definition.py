"""The definition of a projection: one class whose columns are a row and whose methods fold events.

Defining a class reads and checks everything once, into a frozen `Definition`; no I/O, no database.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SAWarning, SQLAlchemyError
from sqlalchemy.orm import configure_mappers, registry

from migrator.projections.events import TOMBSTONE, DefinitionError, Tombstone, types_of
from migrator.projections.reducers import INFO, STATE, Reducer, Step

# PostgreSQL's own names, so that a table that was once made by hand keeps them.
NAMING = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
TYPES: dict[Any, Any] = {
    str: sa.Text(),
    datetime: sa.DateTime(timezone=True),
    date: sa.Date(),
    Decimal: sa.Numeric(),
    UUID: sa.Uuid(),
    bytes: sa.LargeBinary(),
    dict[str, Any]: postgresql.JSONB(),
    list[str]: postgresql.ARRAY(sa.Text()),
    list[int]: postgresql.ARRAY(sa.BigInteger()),
    enum.Enum: sa.Enum(enum.Enum, native_enum=False, length=64),
}
KEY_TYPES: dict[type, Callable[[str], Hashable]] = {str: str, int: int, UUID: UUID}

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Handler:
    """One fold: `function(row, event)` or `function(row, event, meta)`."""

    event: type
    function: Callable[..., None]
    takes_meta: bool


@dataclass(frozen=True)
class Check:
    """A query over the finished table that must return no row."""

    name: str
    query: Callable[[Any], sa.Select[Any]]


@dataclass(frozen=True)
class Reduced:
    """A column that is a reducer, and the columns of the state table that make it."""

    column: sa.Column[Any]
    reducer: Reducer
    state: tuple[sa.Column[Any], ...]


@dataclass(frozen=True, eq=False)
class Definition:
    """Everything the engine needs to know of a projection.

    `state` is the table whose rows are folded, and `attributes` hold its columns' values: the table
    itself or, where its columns are reducers, what they are merged of.
    """

    name: str
    cls: type[Projection]
    topics: tuple[str, ...]
    schema: str | None
    table: sa.Table
    state: sa.Table
    attributes: tuple[str, ...]
    key_attributes: tuple[str, ...]
    key: Callable[[Any], Hashable] | None
    parse_key: Callable[[str], Hashable] | None
    co_partitioned: bool
    handlers: dict[str, Handler]
    ignores: frozenset[str]
    checks: tuple[Check, ...]
    reduced: tuple[Reduced, ...]

    @property
    def columns(self) -> list[tuple[str, sa.types.TypeEngine[Any]]]:
        """The attributes that hold the columns' values, with the columns' types, in their order."""
        types = (column.type for column in self.state.columns)
        return list(zip(self.attributes, types, strict=True))

    @property
    def keeps_state(self) -> bool:
        """Whether what its columns are made of must be kept, to go on from there."""
        return any(each.reducer.is_kept(each.column) for each in self.reduced)

    @property
    def event_classes(self) -> list[type]:
        return [handler.event for handler in self.handlers.values()]


def on(*events: type) -> Callable[[Function], Function]:
    """Let a method fold these events into the row."""

    def mark(function: Function) -> Function:
        function.__migrator_on__ = events  # type: ignore[attr-defined]
        return function

    return mark


def check(function: Any) -> Any:
    """Make a method that returns a query a check: the finished table must give it no row.

    Under a type checker, write `@check` above `@classmethod`.
    """
    query = function.__func__ if isinstance(function, classmethod) else function
    return Check(query.__name__, query)


class Projection:
    """Base of the projections.

        class Order(Projection, topic="orders"):
            __tablename__ = "orders"
            order_id: Mapped[str] = mapped_column(primary_key=True)
            status: Mapped[str]

            @on(OrderPlaced)
            def placed(self, event: OrderPlaced) -> None:
                self.status = "placed"

    The row's key is the record's key; `key=lambda event: ...` takes another, together with
    `co_partitioned=True`: the promise, which the rebuild proves, that no key spreads over partitions.
    Where it does, the columns are reducers instead of what methods fold: `total`, `count`,
    `minimum`, `maximum`, `latest`.
    `topic=("orders", "payments")` folds several topics that are partitioned alike by one key; their
    events are merged by timestamp. `schema=` names another schema than the settings' for the table.
    """

    ignores: ClassVar[Iterable[type | str]] = ()
    __definition__: ClassVar[Definition]

    def __init_subclass__(
        cls,
        *,
        topic: str | Sequence[str] | None = None,
        key: Callable[[Any], Hashable] | None = None,
        co_partitioned: bool = False,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("__abstract__"):
            return
        topics = _topics(cls, topic)
        table = _map(cls)
        _refuse_filled_elsewhere(cls, table)
        attributes = {column.name: prop.key for prop, column in _columns(cls)}
        keys = tuple(attributes[column.name] for column in table.primary_key)
        reduced = _reduced(cls, table, co_partitioned=co_partitioned)
        state = _state(table, reduced) if reduced else table
        cls.__definition__ = Definition(
            name=table.name,
            cls=cls,
            topics=topics,
            schema=schema,
            table=table,
            state=state,
            attributes=tuple(attributes.get(c.name, c.name) for c in state.columns),
            key_attributes=keys,
            key=key,
            parse_key=_key_parser(cls, table, key, is_kept=co_partitioned or bool(reduced)),
            co_partitioned=co_partitioned,
            handlers=_reducing(cls, reduced, attributes) if reduced else _handlers(cls),
            ignores=frozenset(name for e in cls.ignores for name in _type_names(e)),
            checks=tuple(member for _, member in _members(cls) if isinstance(member, Check)),
            reduced=reduced,
        )

    def delete(self) -> None:
        """Delete this row; a later event of the same key starts a fresh one."""
        raise NotImplementedError  # the engine's row classes have their own


def _topics(cls: type[Projection], topic: str | Sequence[str] | None) -> tuple[str, ...]:
    topics = (topic,) if isinstance(topic, str) else tuple(topic or ())
    if not all(topics) or not topics:
        raise DefinitionError(
            f"projection {cls.__name__} names no topic",
            expected=f'class {cls.__name__}(Projection, topic="...")',
        )
    if len(set(topics)) < len(topics):
        raise DefinitionError(
            f"projection {cls.__name__} names a topic twice: {', '.join(topics)}",
            expected="each topic once",
        )
    return topics


def _map(cls: type[Projection]) -> sa.Table:
    """Map the class on a registry of its own, so that definitions of two releases can coexist."""
    try:
        own = registry(metadata=sa.MetaData(naming_convention=NAMING), type_annotation_map=TYPES)
        own.mapped(cls)
        configure_mappers()
    except (SQLAlchemyError, SAWarning) as exc:
        raise DefinitionError(f"projection {cls.__name__}: {exc}") from exc
    table: sa.Table = cls.__table__  # type: ignore[attr-defined]
    if table.schema is not None:
        raise DefinitionError(
            f"projection {cls.__name__} names its schema in __table_args__",
            expected=f'class {cls.__name__}(Projection, topic=..., schema="{table.schema}")',
        )
    if table.foreign_keys:
        raise DefinitionError(
            f"projection {cls.__name__} has a foreign key",
            expected="none: projections are rebuilt apart, and a rebuild must not depend on another",
        )
    return table


def _refuse_filled_elsewhere(cls: type[Projection], table: sa.Table) -> None:
    """The fold gives every value: what the database or SQL would fill in could not be compared."""
    for column in table.columns:
        default = column.default
        value = getattr(default, "arg", None)
        if column.server_default is not None or column.computed is not None or column.identity:
            found = "is filled by the database"
        elif default is not None and not (default.is_scalar or default.is_callable):
            found = "has a default that is SQL"
        elif default is not None and default.is_scalar and isinstance(value, list | dict | set):
            found = f"has the default {value!r}, one object that all rows would share"
        else:
            continue
        raise DefinitionError(
            f"column {column.name} of projection {cls.__name__} {found}",
            expected="a value that a handler sets, or default= with a constant or a function: "
            "default=0, default=list",
        )


def _columns(cls: type[Projection]) -> list[tuple[Any, sa.Column[Any]]]:
    return [(prop, prop.columns[0]) for prop in sa.inspect(cls).column_attrs]


def _members(cls: type[Projection]) -> list[tuple[str, Any]]:
    """The class's own members and its bases', nearest first, each name once."""
    seen: dict[str, Any] = {}
    for base in cls.__mro__:
        if base not in (Projection, object):
            for name, member in vars(base).items():
                seen.setdefault(name, member)
    return list(seen.items())


def _type_names(event: type | str) -> tuple[str, ...]:
    return (event,) if isinstance(event, str) else types_of(event)


def _handlers(cls: type[Projection]) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    for name, member in _members(cls):
        for event in getattr(member, "__migrator_on__", ()):
            handler = _handler(cls, name, event, member)
            for event_type in types_of(event):
                if event_type in handlers:
                    raise DefinitionError(
                        f"projection {cls.__name__} folds {event_type} twice",
                        expected="one handler an event",
                    )
                handlers[event_type] = handler
    if not handlers.keys() - {TOMBSTONE}:
        raise DefinitionError(
            f"projection {cls.__name__} folds no event", expected="a method with @on(SomeEvent)"
        )
    return handlers


def _reduced(
    cls: type[Projection], table: sa.Table, *, co_partitioned: bool
) -> tuple[Reduced, ...]:
    """The columns that are reducers: none of them, or all but the key's."""
    found = [column for column in table.columns if INFO in column.info]
    if not found:
        return ()
    others = [c.name for c in table.columns if INFO not in c.info and not c.primary_key]
    handlers = [name for name, member in _members(cls) if hasattr(member, "__migrator_on__")]
    if handlers or others:
        what = f"the handler {handlers[0]}" if handlers else f"the column {others[0]}"
        raise DefinitionError(
            f"projection {cls.__name__} has the reducer {found[0].name}, and {what} beside it",
            expected="reducers alone: partitions fold apart and are merged, so the order between "
            "the events of a key is not defined, and no handler may rest on it",
            next_step="make every column but the key's a reducer; or fold with handlers alone, "
            "with co_partitioned=True if no key spreads over partitions",
        )
    if co_partitioned:
        raise DefinitionError(
            f"projection {cls.__name__} is co_partitioned, and its columns are reducers",
            expected="one of both: reducers are right wherever a key's events lie",
            next_step="leave co_partitioned out",
        )
    keys = [column.name for column in found if column.primary_key]
    if keys:
        raise DefinitionError(
            f"column {keys[0]} of projection {cls.__name__} is a key and a reducer",
            expected="a key that the record has, or that key=lambda event: ... gives",
        )
    reducers = [(column, column.info[INFO]) for column in found]
    return tuple(
        Reduced(column, reducer, tuple(reducer.state(number, column)))
        for number, (column, reducer) in enumerate(reducers)
    )


def _state(table: sa.Table, reduced: tuple[Reduced, ...]) -> sa.Table:
    return sa.Table(
        STATE,
        sa.MetaData(naming_convention=NAMING),
        *(sa.Column(key.name, key.type, primary_key=True) for key in table.primary_key),
        *(column for each in reduced for column in each.state),
    )


def _reducing(
    cls: type[Projection], reduced: tuple[Reduced, ...], attributes: dict[str, str]
) -> dict[str, Handler]:
    """One handler a type of event, which takes the event into all the columns that want it."""
    steps: dict[type, list[Step]] = {}
    metas: set[type] = set()
    for each in reduced:
        names = [attributes.get(column.name, column.name) for column in each.state]
        for event in each.reducer.values:
            steps.setdefault(event, []).append(each.reducer.step(event, names, each.column))
            metas.update({event} if each.reducer.takes_meta else ())
    handlers: dict[str, Handler] = {}
    for event, taken in steps.items():
        for event_type in types_of(event):
            if event_type in handlers:
                raise DefinitionError(
                    f"projection {cls.__name__} reads {event_type} by two classes",
                    expected="one class an event",
                )
            handlers[event_type] = Handler(event, _all_of(taken), takes_meta=event in metas)
    return handlers


def _all_of(steps: list[Step]) -> Callable[..., None]:
    def reduce(row: Any, event: Any, meta: Any = None) -> None:
        for step in steps:
            step(row, event, meta)

    return reduce


def _handler(cls: type[Projection], name: str, event: type, function: Any) -> Handler:
    if event is not Tombstone and not hasattr(event, "__event_types__"):
        raise DefinitionError(
            f"@on({getattr(event, '__name__', event)}) of {cls.__name__}.{name} is no event",
            expected="a subclass of migrator.Event, or Tombstone",
        )
    count = len(inspect.signature(function).parameters)
    if count not in (2, 3):
        raise DefinitionError(
            f"{cls.__name__}.{name} takes {count} parameters",
            expected="(self, event) or (self, event, meta)",
        )
    return Handler(event, function, takes_meta=count == 3)


def _key_parser(
    cls: type[Projection],
    table: sa.Table,
    key: Callable[[Any], Hashable] | None,
    *,
    is_kept: bool,
) -> Callable[[str], Hashable] | None:
    """How the record's key becomes the row's, or None where `key=` makes it."""
    if key is not None:
        if not is_kept:
            raise DefinitionError(
                f"projection {cls.__name__} takes another key than the record's",
                expected="co_partitioned=True, the promise that no such key spreads over partitions",
                next_step="where the promise does not hold, make its columns reducers, which need "
                "no order: total(), count(), minimum(), maximum(), latest(by=...)",
            )
        return None
    columns = list(table.primary_key)
    python = columns[0].type.python_type if len(columns) == 1 else None
    if python not in KEY_TYPES:
        raise DefinitionError(
            f"the record's key cannot fill the primary key of {cls.__name__}",
            expected="one column of type str, int or UUID, or key=lambda event: ...",
        )
    return KEY_TYPES[python]
