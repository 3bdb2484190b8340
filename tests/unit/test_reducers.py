"""Reducers: what a definition may say, and what each makes of its events."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Meta, Projection, count, latest, maximum, minimum, on, total
from migrator.projections.events import DefinitionError
from migrator.projections.fold import Fold, NoKey, Unfoldable, Unhandled


class Mood(enum.Enum):
    good = 1


class Paid(Event):
    owner: str = "x"
    value: Any = None
    by: Any = None


class Refunded(Event):
    owner: str = "x"
    value: Any = None


def define(key: Any = lambda event: event.owner, /, **members: Any) -> type[Projection]:
    """A projection keyed by owner; `name=(type, column)` adds a column."""
    options = members.pop("options", {})
    columns = {name: each for name, each in members.items() if isinstance(each, tuple)}
    return type(
        "Owner",
        (Projection,),
        {
            "__tablename__": "owners",
            "__annotations__": {
                "owner": Mapped[str],
                **{name: Mapped[python] for name, (python, _) in columns.items()},
            },
            "owner": mapped_column(primary_key=True),
            **members,
            **{name: column for name, (_, column) in columns.items()},
        },
        **{"topic": "t", "key": key, **options},
    )


def folded(projection: type[Projection], *events: Any) -> dict[Any, Any]:
    """Fold events in their order, each at its place of one partition."""
    fold = Fold(projection.__definition__)
    names = ["Tombstone" if event is None else type(event).__name__ for event in events]
    kinds = {name: type(name, (SimpleNamespace,), {"type": name}) for name in names}

    def meta(record: int, _key: Any, event: Any) -> Meta:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return Meta(topic="t", partition=0, offset=record, timestamp=at, type=event.type)

    apply = fold.compiled(kinds, meta)
    decoded = [kinds[name](payload=event) for name, event in zip(names, events, strict=True)]
    apply([b"k"] * len(events), decoded, range(len(events)))
    return fold.rows


def value_of(python: Any, column: Any, *events: Any) -> Any:
    return folded(define(it=(python, column)), *events)["x"].it


def paid(*values: Any) -> list[Paid]:
    return [Paid(value=value) for value in values]


def value(event: Any) -> Any:
    return event.value


def test_a_total_adds_and_passes_none_over():
    assert value_of(int, total(Paid, value), *paid(3, None, 4)) == 7


def test_a_total_of_several_events_takes_a_value_of_each():
    column = total({Paid: value, Refunded: lambda event: -event.value})
    assert value_of(int, column, *paid(5), Refunded(value=2)) == 3


def test_a_count_counts_the_events_that_where_takes():
    column = count(Paid, Refunded, where=lambda event: event.value > 1)
    assert value_of(int, column, *paid(1, 2), Refunded(value=3)) == 2


def test_a_row_is_there_even_where_no_column_takes_a_value():
    row = folded(
        define(
            sum=(int, total(Paid, value, where=lambda _e: False)),
            least=(int | None, minimum(Paid, value)),
        ),
        *paid(None),
    )["x"]
    assert (row.sum, row.least) == (0, None)


@pytest.mark.parametrize(
    ("python", "values"),
    [
        (int, [2, 1, 3]),
        (float, [2.5, 1, 3.25]),
        (Decimal, [Decimal("1.5"), Decimal("1.25"), 2]),
        (str, ["b", "B", "é"]),
        (date, [date(2026, 1, 2), date(2026, 1, 1), date(2026, 1, 3)]),
        (
            datetime,
            [
                datetime(2026, 1, 1, 2, tzinfo=UTC),
                datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=1))),
                datetime(2026, 1, 1, 3),  # noqa: DTZ001 - taken as UTC
            ],
        ),
    ],
)
def test_minimum_and_maximum_are_the_least_and_the_greatest(python, values):
    _, least, greatest = values
    if python is datetime:
        greatest = greatest.replace(tzinfo=UTC)
    for events in (paid(*values), paid(*reversed(values))):
        assert value_of(python | None, minimum(Paid, value), *events) == least
        assert value_of(python | None, maximum(Paid, value), *events) == greatest


def test_latest_is_the_value_of_the_greatest_by_and_of_equal_ones_the_last_in_the_log():
    def last(*events: Paid) -> Any:
        column = latest(Paid, value, by=lambda event: event.by)
        return value_of(str | None, column, *events)

    events = [Paid(value="a", by=1), Paid(value="b", by=3), Paid(value="c", by=2)]
    assert last(*events) == "b"
    assert last(*events, Paid(value="d", by=3)) == "d"
    assert last(*events, Paid(value=None, by=4)) is None
    assert last(*events, Paid(value="d", by=None)) == "b"


def test_functions_may_take_the_meta():
    column = latest(Paid, lambda e, meta: e.value + meta.topic, by=lambda _e, meta: -meta.offset)
    assert value_of(str | None, column, *paid("a", "b")) == "at"


@pytest.mark.parametrize(
    ("python", "column", "wrong"),
    [
        (int, total(Paid, value), 1.5),
        (int, total(Paid, value), "1"),
        (Decimal, total(Paid, value), 0.1),
        (Decimal, total(Paid, value), Decimal("nan")),
        (float, minimum(Paid, value), float("nan")),
        (date, maximum(Paid, value), datetime(2026, 1, 1, tzinfo=UTC)),
        (str, maximum(Paid, value), 7),
    ],
)
def test_a_value_that_could_not_be_merged_exactly_is_refused(python, column, wrong):
    with pytest.raises(Unfoldable) as stopped:
        value_of(python, column, Paid(value=wrong))
    assert "it takes" in str(stopped.value.__cause__)


def test_a_by_that_has_no_order_is_refused():
    with pytest.raises(Unfoldable) as stopped:
        value_of(str, latest(Paid, value, by=lambda _e: "text"), *paid("a"))
    assert "expected a number or a time" in str(stopped.value.__cause__)


@given(st.permutations([Decimal(10) ** 40, Decimal("1E-20"), -(Decimal(10) ** 40), Decimal("0.1")]))
def test_a_sum_of_decimals_does_not_hang_on_their_order(values):
    assert value_of(Decimal, total(Paid, value), *paid(*values)) == Decimal(
        "0.10000000000000000001"
    )


def test_a_tombstone_has_nothing_to_reduce_and_must_be_ignored():
    with pytest.raises(Unfoldable) as stopped:
        folded(define(it=(int, count(Paid))), None)
    assert isinstance(stopped.value.__cause__, NoKey)
    keyed = define(None, it=(int, count(Paid)))
    with pytest.raises(Unfoldable) as stopped:
        folded(keyed, Paid(), None)
    assert isinstance(stopped.value.__cause__, Unhandled)
    assert len(folded(define(it=(int, count(Paid)), ignores=["Tombstone"]), Paid(), None)) == 1


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (lambda: {"seen": on(Paid)(lambda s, e: None)}, "the handler seen beside it"),
        (lambda: {"more": (int, mapped_column())}, "the column more beside it"),
        (lambda: {"options": {"co_partitioned": True}}, "is co_partitioned"),
        (lambda: {"extra": (int, count(Paid, primary_key=True))}, "a key and a reducer"),
        (lambda: {"bad": (float, total(Paid, value))}, "sums of floats hang on their order"),
        (lambda: {"bad": (bool, minimum(Paid, value))}, "cannot be a minimum or maximum"),
        (lambda: {"bad": (Mood, maximum(Paid, value))}, "cannot be a minimum or maximum"),
        (lambda: {"bad": (int, total(Paid))}, "lacks a function"),
        (lambda: {"bad": (int, total({Paid: value}, value))}, "lacks a function"),
        (lambda: {"bad": (int, count())}, "lacks a function"),
        (lambda: {"bad": (int, count(str))}, "count(str) is no event"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(members, said):
    with pytest.raises(DefinitionError) as caught:
        define(it=(int, count(Paid)), **members())
    assert said in str(caught.value)


def test_another_key_without_a_promise_is_pointed_to_reducers():
    with pytest.raises(DefinitionError) as caught:
        define(seen=on(Paid)(lambda s, e: None))
    assert "total(), count()" in caught.value.next_step


def test_one_type_read_by_two_classes_is_refused():
    class Other(Event, type="Paid"):
        pass

    with pytest.raises(DefinitionError, match="reads Paid by two classes"):
        define(a=(int, count(Paid)), b=(int, count(Other)))
