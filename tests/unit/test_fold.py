"""Folding: pure, in order, one row a key."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Meta, Projection, Tombstone, on
from migrator.projections.fold import Fold, NoKey, Unfoldable, Unhandled


class Added(Event):
    amount: int
    owner: str = "x"


class Closed(Event):
    pass


class Seen(Event):
    pass


class Touched(Event):
    pass


class Account(Projection, topic="accounts"):
    __tablename__ = "accounts"
    ignores = ("Seen",)
    FACTOR = 2

    account: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)
    history: Mapped[list[int]] = mapped_column(default=list)
    last: Mapped[datetime | None]

    @on(Added)
    def added(self, event: Added, meta: Meta) -> None:
        self.balance += self.doubled(event.amount)
        self.history.append(event.amount)
        self.last = meta.timestamp

    @on(Closed)
    def closed(self, event: Closed) -> None:
        self.delete()

    def doubled(self, amount: int) -> int:
        return amount * self.FACTOR


META = Meta(topic="t", partition=0, offset=1, timestamp=datetime(2026, 1, 1, tzinfo=UTC), type="x")


def folded(*events: tuple[Any, Any], projection: Any = Account) -> dict[Any, Any]:
    """Fold events, or None for a tombstone, in one batch."""
    fold = Fold(projection.__definition__)
    types = ["Tombstone" if event is None else type(event).__name__ for _, event in events]
    kinds = {name: type(name, (SimpleNamespace,), {"type": name}) for name in types}
    decoded = [kinds[t](payload=event) for t, (_, event) in zip(types, events, strict=True)]
    apply = fold.compiled(kinds, lambda *_: META)
    apply([key for key, _ in events], decoded, events)
    return fold.rows


def cause_of(*events: tuple[Any, Any], projection: Any = Account) -> BaseException | None:
    """What stops the folding of these events."""
    with pytest.raises(Unfoldable) as stopped:
        folded(*events, projection=projection)
    assert stopped.value.record == events[-1]
    return stopped.value.__cause__


def test_a_row_begins_with_its_key_and_defaults():
    row = folded(("a", Added(amount=0)))["a"]
    assert (row.account, row.balance, row.history, row.last) == ("a", 0, [0], META.timestamp)


def test_events_of_one_key_fold_into_one_row_in_order():
    row = folded(("a", Added(amount=1)), ("b", Added(amount=9)), ("a", Added(amount=2)))["a"]
    assert (row.balance, row.history) == (6, [1, 2])


def test_mutable_defaults_are_not_shared_between_rows():
    rows = folded(("a", Added(amount=1)), ("b", Added(amount=2)))
    assert (rows["a"].history, rows["b"].history) == ([1], [2])


def test_a_deleted_row_is_gone_and_a_later_event_starts_afresh():
    assert folded(("a", Added(amount=1)), ("a", Closed())) == {}
    row = folded(("a", Added(amount=1)), ("a", Closed()), ("a", Added(amount=5)))["a"]
    assert row.history == [5]


def test_a_tombstone_deletes_the_row_and_of_an_unknown_key_nothing():
    assert folded(("a", Added(amount=1)), ("a", None), ("b", None)) == {}


def test_a_tombstone_handler_decides_for_itself():
    class Kept(Projection, topic="t"):
        __tablename__ = "kept"
        key: Mapped[str] = mapped_column(primary_key=True)
        gone: Mapped[bool] = mapped_column(default=False)

        @on(Added)
        def added(self, event: Added) -> None: ...

        @on(Tombstone)
        def buried(self, event: None) -> None:
            self.gone = True

    assert folded(("a", None), projection=Kept)["a"].gone is True


def test_a_handler_cannot_invent_a_column():
    class Wrong(Projection, topic="t"):
        __tablename__ = "wrong"
        key: Mapped[str] = mapped_column(primary_key=True)

        @on(Added)
        def added(self, event: Added) -> None:
            self.kye = 1  # type: ignore[attr-defined]

    cause = cause_of(("a", Added(amount=1)), projection=Wrong)
    assert isinstance(cause, AttributeError)
    assert "kye" in str(cause)


def test_an_unhandled_type_is_refused_and_an_ignored_one_passes_by():
    assert folded(("a", Seen())) == {}
    cause = cause_of(("a", Added(amount=1)), ("a", Touched()))
    assert isinstance(cause, Unhandled)
    assert str(cause) == "accounts has no handler for Touched"


def test_a_record_without_a_key_has_no_row():
    cause = cause_of(("a", Added(amount=1)), (None, Added(amount=1)))
    assert isinstance(cause, NoKey)
    assert "no key" in str(cause)


class Owner(
    Projection, topic="t", key=lambda event: (event.owner, event.amount), co_partitioned=True
):
    __tablename__ = "owners"
    owner: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)

    @on(Added)
    def added(self, event: Added) -> None:
        self.count += 1


def test_a_key_of_several_columns_fills_them_all():
    row = folded(("whatever", Added(amount=3, owner="o")), projection=Owner)["o", 3]
    assert (row.owner, row.amount, row.count) == ("o", 3, 1)


def test_a_tombstone_has_no_event_to_take_a_key_from():
    cause = cause_of(("a", None), projection=Owner)
    assert isinstance(cause, NoKey)
    assert "tombstone" in str(cause)


def test_a_key_of_bytes_is_decoded_in_the_row():
    assert folded((b"a", Added(amount=1)))[b"a"].account == "a"


events = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.integers(-5, 5).map(lambda n: Added(amount=n)), st.just(Closed()), st.none()),
    )
)


@given(events)
def test_folding_twice_gives_the_same_rows(log):
    def shown(rows):
        return {k: (r.account, r.balance, r.history, r.last) for k, r in rows.items()}

    assert shown(folded(*log)) == shown(folded(*log))


@given(events)
def test_keys_fold_apart(log):
    together = folded(*log)
    apart = {}
    for key in "abc":
        apart |= folded(*[(k, e) for k, e in log if k == key])
    assert {k: r.history for k, r in together.items()} == {k: r.history for k, r in apart.items()}
