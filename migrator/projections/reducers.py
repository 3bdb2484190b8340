"""Reducers: columns whose value hangs on which events a key has, and not on their order.

Each is associative and commutative, and so exact: partitions fold apart, in any order, and merge. What
a partition has folded so far is a row of state, of one column or more a reducer; SQL merges them.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any, TypeGuard

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import MappedColumn, mapped_column

from migrator.projections.events import DefinitionError, EventClass, Meta

Of = Callable[..., Any]
Source = type | Mapping[type, Of]
Value = Callable[[Any, Meta], Any]
Step = Callable[[Any, Any, Meta], None]

INFO = "migrator_reducer"
STATE = "migrator_state"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# A sum that would have to be rounded would hang on the order: it is an error.
EXACT = Context(
    prec=20_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation, Overflow]
)


def total(
    source: Source, of: Of | None = None, *, where: Of | None = None, **column: Any
) -> MappedColumn[Any]:
    """A column that is the sum of a value of each event; 0 where there is none.

        spent: Mapped[int] = total(OrderPlaced, lambda event: event.total_cents, type_=BigInteger)
        balance: Mapped[int] = total({Paid: lambda e: e.cents, Refunded: lambda e: -e.cents})

    Whole numbers and decimals, whose sums are exact; None is passed over. `of` and `where` take
    the event, or the event and its Meta; other arguments are those of `mapped_column`.

    Raises:
        DefinitionError: the source is no event, or there is no function for its value.
    """
    return _column(Total(_values("total", source, of), where), column)


def count(*events: type, where: Of | None = None, **column: Any) -> MappedColumn[Any]:
    """A column that is how many of these events there are; arguments and errors as of `total`."""
    return _column(Total(_values("count", dict.fromkeys(events, _one), None), where), column)


def minimum(
    source: Source, of: Of | None = None, *, where: Of | None = None, **column: Any
) -> MappedColumn[Any]:
    """A column that is the least value of the events, NULL where there is none.

    Numbers, times, dates and text, which is compared by code point; None is passed over. Arguments
    and errors as of `total`.
    """
    return _column(Extreme(_values("minimum", source, of), where, is_greatest=False), column)


def maximum(
    source: Source, of: Of | None = None, *, where: Of | None = None, **column: Any
) -> MappedColumn[Any]:
    """A column that is the greatest value of the events, otherwise as `minimum`."""
    return _column(Extreme(_values("maximum", source, of), where, is_greatest=True), column)


def latest(
    source: Source, of: Of | None = None, *, by: Of, where: Of | None = None, **column: Any
) -> MappedColumn[Any]:
    """A column that is the value of the event with the greatest `by`, NULL where there is none.

        status: Mapped[str] = latest(StatusSet, lambda e: e.status, by=lambda e: e.set_at)

    `by` gives a number or a time; an event for which it gives None is passed over. Of equal ones the
    event that lies last in the log counts: topic, partition, offset. Arguments and errors as of
    `total`.
    """
    return _column(Latest(_values("latest", source, of), where, by=by), column)


@dataclass(frozen=True, eq=False)
class Reducer(ABC):
    """One column's: which events it takes, and what it does with each.

    Its state is one column or more, the first of which has the column's own name.
    """

    values: Mapping[type, Of]
    where: Of | None

    @property
    def takes_meta(self) -> bool:
        return any(_takes_meta(each) for each in (*self.values.values(), self.where) if each)

    def step(self, event: type, attributes: Sequence[str], column: sa.Column[Any]) -> Step:
        """Make the function that takes one event into the attributes of a row of state."""
        of, take = _value(self.values[event]), self._taker(attributes, column)
        if self.where is None:
            return lambda row, event, meta: take(row, of(event, meta), event, meta)
        where = _value(self.where)

        def step(row: Any, event: Any, meta: Meta) -> None:
            if where(event, meta):
                take(row, of(event, meta), event, meta)

        return step

    @abstractmethod
    def state(self, number: int, column: sa.Column[Any]) -> list[sa.Column[Any]]:
        """The columns of the state; `number` tells one reducer's from another's.

        Raises:
            DefinitionError: the reducer does not fit the column's type.
        """

    @abstractmethod
    def merged(self, state: Sequence[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
        """The aggregates that make one state of those of all partitions; the first is the value."""

    @abstractmethod
    def joined(
        self, held: Sequence[sa.ColumnElement[Any]], more: Sequence[sa.ColumnElement[Any]]
    ) -> list[sa.ColumnElement[Any]]:
        """The state that two of them make together; the first is the value."""

    def is_kept(self, column: sa.Column[Any]) -> bool:  # noqa: ARG002
        """Whether the column's value alone does not tell the state that it was made of."""
        return False

    @abstractmethod
    def _taker(
        self, attributes: Sequence[str], column: sa.Column[Any]
    ) -> Callable[[Any, Any, Any, Meta], None]: ...


class Total(Reducer):
    def state(self, number: int, column: sa.Column[Any]) -> list[sa.Column[Any]]:  # noqa: ARG002
        if isinstance(column.type, sa.Integer):
            # A part of a sum may be larger than the sum.
            return [sa.Column(column.name, sa.BigInteger(), default=0, nullable=False)]
        if isinstance(column.type, sa.Numeric):
            return [sa.Column(column.name, sa.Numeric(), default=Decimal(0), nullable=False)]
        raise _misfit(column, "a sum", "int or Decimal: sums of floats hang on their order")

    def merged(self, state: Sequence[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
        return [sa.func.sum(state[0])]

    def joined(
        self, held: Sequence[sa.ColumnElement[Any]], more: Sequence[sa.ColumnElement[Any]]
    ) -> list[sa.ColumnElement[Any]]:
        return [held[0] + more[0]]

    def is_kept(self, column: sa.Column[Any]) -> bool:
        """A sum that its column rounds may not be added to."""
        return getattr(column.type, "precision", None) is not None

    def _taker(
        self, attributes: Sequence[str], column: sa.Column[Any]
    ) -> Callable[[Any, Any, Any, Meta], None]:
        (name,) = attributes
        fit = _fitting(column)

        def take(row: Any, value: Any, _event: Any, _meta: Meta) -> None:
            if value is not None:
                fitted, so_far = fit(value), getattr(row, name)
                is_whole = isinstance(fitted, int) and isinstance(so_far, int)
                setattr(row, name, so_far + fitted if is_whole else EXACT.add(so_far, fitted))

        return take


@dataclass(frozen=True, eq=False)
class Extreme(Reducer):
    is_greatest: bool

    def state(self, number: int, column: sa.Column[Any]) -> list[sa.Column[Any]]:  # noqa: ARG002
        if _fit_of(column.type) is None:
            raise _misfit(
                column, "a minimum or maximum", "a number, a text, a date, or a date with time"
            )
        return [sa.Column(column.name, column.type, nullable=True)]

    def merged(self, state: Sequence[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
        value = _compared(state[0])
        return [sa.func.max(value) if self.is_greatest else sa.func.min(value)]

    def joined(
        self, held: Sequence[sa.ColumnElement[Any]], more: Sequence[sa.ColumnElement[Any]]
    ) -> list[sa.ColumnElement[Any]]:
        function = sa.func.greatest if self.is_greatest else sa.func.least
        return [function(_compared(held[0]), _compared(more[0]))]

    def _taker(
        self, attributes: Sequence[str], column: sa.Column[Any]
    ) -> Callable[[Any, Any, Any, Meta], None]:
        (name,) = attributes
        fit, is_greatest = _fitting(column), self.is_greatest

        def take(row: Any, value: Any, _event: Any, _meta: Meta) -> None:
            if value is None:
                return
            value, so_far = fit(value), getattr(row, name)
            if so_far is None or (value > so_far if is_greatest else value < so_far):
                setattr(row, name, value)

        return take


@dataclass(frozen=True, eq=False)
class Latest(Reducer):
    by: Of

    @property
    def takes_meta(self) -> bool:
        return True

    def state(self, number: int, column: sa.Column[Any]) -> list[sa.Column[Any]]:
        prefix = f"migrator_{number}"
        return [
            sa.Column(column.name, column.type, nullable=True),
            sa.Column(f"{prefix}_by", sa.Numeric(), nullable=True),
            sa.Column(f"{prefix}_topic", sa.Text(), nullable=True),
            sa.Column(f"{prefix}_partition", sa.Integer(), nullable=True),
            sa.Column(f"{prefix}_offset", sa.BigInteger(), nullable=True),
        ]

    def merged(self, state: Sequence[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
        _, by, topic, partition, offset = state
        order = by.desc(), sa.collate(topic, "C").desc(), partition.desc(), offset.desc()

        def of_the_last(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
            # As text, since arrays of arrays cannot be of several lengths.
            ordered = postgresql.aggregate_order_by(sa.cast(column, sa.Text), *order)
            values = sa.func.array_agg(ordered, type_=postgresql.ARRAY(sa.Text))
            return sa.cast(values.filter(by.is_not(None))[1], column.type)

        return [of_the_last(column) for column in state]

    def joined(
        self, held: Sequence[sa.ColumnElement[Any]], more: Sequence[sa.ColumnElement[Any]]
    ) -> list[sa.ColumnElement[Any]]:
        def rank(state: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
            _, by, topic, partition, offset = state
            return sa.tuple_(by, sa.collate(topic, "C"), partition, offset)

        is_later = sa.and_(more[1].is_not(None), sa.or_(held[1].is_(None), rank(more) > rank(held)))
        return [sa.case((is_later, new), else_=old) for old, new in zip(held, more, strict=True)]

    def is_kept(self, column: sa.Column[Any]) -> bool:  # noqa: ARG002
        return True

    def _taker(
        self,
        attributes: Sequence[str],
        column: sa.Column[Any],  # noqa: ARG002
    ) -> Callable[[Any, Any, Any, Meta], None]:
        name, by_name, topic, partition, offset = attributes
        by = _value(self.by)

        def take(row: Any, value: Any, event: Any, meta: Meta) -> None:
            rank, so_far = _rank(by(event, meta)), getattr(row, by_name)
            if rank is None:
                return
            if so_far is not None:
                held = (so_far, getattr(row, topic), getattr(row, partition), getattr(row, offset))
                if (rank, meta.topic, meta.partition, meta.offset) < held:
                    return
            setattr(row, name, value)
            setattr(row, by_name, rank)
            setattr(row, topic, meta.topic)
            setattr(row, partition, meta.partition)
            setattr(row, offset, meta.offset)

        return take


def _compared(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Text is compared as Python does it, whatever its column's collation."""
    return sa.collate(value, "C") if isinstance(value.type, sa.String) else value


def _column(reducer: Reducer, arguments: dict[str, Any]) -> MappedColumn[Any]:
    return mapped_column(info={**arguments.pop("info", {}), INFO: reducer}, **arguments)


def _values(name: str, source: Source, of: Of | None) -> Mapping[type, Of]:
    values: dict[type, Any] = dict(source) if isinstance(source, Mapping) else {source: of}
    if isinstance(source, Mapping) == (of is not None) or not values:
        raise DefinitionError(
            f"{name}() lacks a function for the value of each event",
            expected=f"{name}(SomeEvent, lambda event: event.value) or "
            f"{name}({{SomeEvent: lambda event: event.value, ...}})",
        )
    for event in values:
        if not isinstance(event, EventClass):
            raise DefinitionError(
                f"{name}({getattr(event, '__name__', event)}) is no event",
                expected="a subclass of migrator.Event",
            )
    return values


def _one(_event: Any) -> int:
    return 1


def _takes_meta(function: Of) -> bool:
    return len(inspect.signature(function).parameters) > 1


def _value(function: Of) -> Value:
    return function if _takes_meta(function) else lambda event, _meta: function(event)


def _rank(value: Any) -> int | Decimal | None:
    """What orders the events of a `latest`, as a number that PostgreSQL orders alike."""
    if isinstance(value, datetime):
        return (_aware(value) - EPOCH) // MICROSECOND
    if isinstance(value, date):
        return (value - EPOCH.date()) // MICROSECOND
    if isinstance(value, float):
        value = Decimal(value)
    if value is None or isinstance(value, int) or _is_finite(value):
        return value
    raise TypeError(f"by= gives {value!r}, expected a number or a time")


def _misfit(column: sa.Column[Any], what: str, expected: str) -> DefinitionError:
    return DefinitionError(f"column {column.name} cannot be {what}", expected=expected)


Fit = Callable[[Any], Any]


def _fitting(column: sa.Column[Any]) -> Fit:
    """What makes the one form of a value that it also has when it comes back from PostgreSQL."""
    found = _fit_of(column.type)
    assert found is not None
    expected, fit = found

    def checked(value: Any) -> Any:
        fitted = fit(value)
        if fitted is None:
            raise TypeError(f"{column.name} takes {expected}, not {value!r}")
        return fitted

    return checked


def _whole(value: Any) -> Any:
    return value if isinstance(value, int) else None


def _number(value: Any) -> Any:
    """NaN has no place in any order; adding nothing makes 0.0 of -0.0."""
    return float(value) + 0.0 if isinstance(value, int | float) and not math.isnan(value) else None


def _exact(value: Any) -> Any:
    return value if isinstance(value, int) or _is_finite(value) else None


def _time(value: Any) -> Any:
    return _aware(value) if isinstance(value, datetime) else None


def _local_time(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else None


def _day(value: Any) -> Any:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


_FITS: tuple[tuple[type, str, Fit], ...] = (
    (sa.Integer, "whole numbers", _whole),
    (sa.Float, "numbers", _number),
    (sa.Numeric, "whole numbers and decimals", _exact),
    (sa.Date, "dates", _day),
    (sa.String, "text", _text),
)


def _fit_of(type_: sa.types.TypeEngine[Any]) -> tuple[str, Fit] | None:
    if isinstance(type_, sa.Enum | sa.CHAR):  # ordered otherwise than their values here
        return None
    if isinstance(type_, sa.DateTime):
        return "dates with time", _time if type_.timezone else _local_time
    return next(((what, fit) for kind, what, fit in _FITS if isinstance(type_, kind)), None)


def _is_finite(value: Any) -> TypeGuard[Decimal]:
    return isinstance(value, Decimal) and value.is_finite()


def _aware(value: datetime) -> datetime:
    """A datetime without a time zone is taken as UTC, as everywhere."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
