"""Events that do not decode or fold are left out, and all else is as if they had never been there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, Tombstone, on
from migrator.errors import CannotConnect, Refused
from migrator.projections.partition import Full, NeedsCare, PartitionFold
from migrator.projections.poison import is_poison
from migrator.settings import Topic


class Moved(Event):
    by: int
    breaks: bool = False


class Closed(Event):
    breaks: bool = False


class Place(Projection, topic="t"):
    """Its handlers change the row, a list in it, and then raise where the event says so."""

    __tablename__ = "places"
    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(default=0)
    path: Mapped[list[int]] = mapped_column(default=list)

    @on(Moved)
    def moved(self, event: Moved) -> None:
        self.at += event.by
        self.path.append(event.by)
        if event.breaks:
            raise ValueError("broken")

    @on(Closed)
    def closed(self, event: Closed) -> None:
        self.delete()
        if event.breaks:
            raise ValueError("broken")


class Record:
    def __init__(self, key: str | None, value: bytes | None, offset: int = 0) -> None:
        self._key, self._value, self._offset = key, value, offset

    def key(self) -> bytes | None:
        return None if self._key is None else self._key.encode()

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [("trace", b"\xff"), ("none", None)]

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


def record(key: str | None, event_type: str, /, **data: Any) -> Record:
    return Record(key, json.dumps({"type": event_type, "data": data}).encode())


def fold(**options: Any) -> PartitionFold:
    return PartitionFold({"t": Topic()}, [Place.__definition__], **options)


def rows(partition: PartitionFold) -> dict[Any, tuple[int, list[int]]]:
    return {key: (row.at, row.path) for key, row in partition.folds[0].rows.items()}


def test_a_handler_that_stops_half_way_leaves_its_row_as_it_was():
    partition = fold(room=[9], careful=True)
    partition.apply(
        [
            record("a", "Moved", by=1),
            record("a", "Moved", by=5, breaks=True),
            record("b", "Moved", by=5, breaks=True),
            record("a", "Closed", breaks=True),
            record("a", "Moved", by=2),
        ]
    )
    assert rows(partition) == {b"a": (3, [1, 2])}
    assert [each.type for each in partition.held[0]] == ["Moved", "Moved", "Closed"]
    assert partition.held[0][0].error.startswith("a handler failed: ValueError: broken")
    assert "test_careful_fold.py, line" in partition.held[0][0].error
    assert partition.events == {"t": 5}


def test_the_fast_fold_asks_for_care_where_a_row_may_be_half_changed():
    with pytest.raises(NeedsCare):
        fold(room=[9]).apply([record("a", "Moved", by=1, breaks=True)])


def test_what_does_not_decode_is_left_out_without_care_and_with_all_its_bytes():
    partition = fold(room=[9])
    partition.apply(
        [record("a", "Moved", by=1), Record("a", b"\xff{", 7), record("a", "Moved", by=2)]
    )
    assert rows(partition) == {b"a": (3, [1, 2])}
    (held,) = partition.held[0]
    assert (held.key, held.value, held.offset, held.type) == (b"a", b"\xff{", 7, None)
    assert held.headers == (("trace", b"\xff"), ("none", None))


def test_a_key_that_does_not_decode_is_poison_for_every_projection():
    partition = PartitionFold(
        {"t": Topic(key="json")}, [Place.__definition__, Other.__definition__], room=[9, 9]
    )
    partition.apply([record('"a"', "Moved", by=1), record("{", "Moved", by=2)])
    assert [[each.key for each in held] for held in partition.held] == [[b"{"], [b"{"]]
    assert [len(each.rows) for each in partition.folds] == [1, 1]


def test_a_timestamp_that_no_calendar_has_is_left_out():
    class Odd(Record):
        def timestamp(self) -> tuple[int, int]:
            return 1, 2**62

    partition = fold(room=[9])
    partition.apply([Odd("a", b"{")])
    assert partition.held[0][0].timestamp is None


def test_one_more_than_there_is_room_for_stops_and_names_those_before():
    partition = fold(room=[1])
    with pytest.raises(Full) as caught:
        partition.apply([Record("a", b"1", 3), Record("b", b"2", 4)])
    assert "offset 4, key 'b'" in caught.value.stopped.found
    assert [each.offset for each in caught.value.before] == [3]


@pytest.mark.parametrize("careful", [False, True])
def test_a_type_without_handler_is_no_poison(careful):
    with pytest.raises(Refused, match="no handler for 'Unheard'"):
        fold(room=[9], careful=careful).apply([record("a", "Unheard")])


def test_what_lies_around_an_event_is_not_its_fault():
    assert not is_poison(CannotConnect("the registry does not answer"))
    assert not is_poison(MemoryError())
    assert is_poison(RecursionError())


class Other(Projection, topic="t"):
    """Reads another field of the same events, and ignores Closed."""

    __tablename__ = "others"
    ignores = ("Closed", Tombstone)
    name: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)

    class Any(Event, type="Moved"):
        pass

    @on(Any)
    def moved(self, _event: Any) -> None:
        self.count += 1


def test_each_projection_of_a_pass_goes_without_its_own_events_alone():
    partition = PartitionFold(
        {"t": Topic()}, [Place.__definition__, Other.__definition__], room=[9, 9], careful=True
    )
    partition.apply(
        [
            record("a", "Moved", by=1),
            record("a", "Moved", by="far"),
            record("a", "Moved", by=2, breaks=True),
            record("a", "Closed", breaks=3),
            Record("a", b"{"),
        ]
    )
    assert [len(held) for held in partition.held] == [4, 1]
    assert partition.folds[1].rows[b"a"].count == 3
    assert rows(partition) == {b"a": (1, [1])}


EVENTS = st.one_of(
    st.builds(
        lambda key, by, breaks: record(key, "Moved", by=by, breaks=breaks),
        st.sampled_from("abc"),
        st.integers(-3, 3),
        st.booleans(),
    ),
    st.builds(
        lambda key, breaks: record(key, "Closed", breaks=breaks),
        st.sampled_from("abc"),
        st.booleans(),
    ),
    st.builds(lambda key: Record(key, None), st.sampled_from("abc")),
    st.builds(lambda key: Record(key, b"?"), st.sampled_from("abc")),
)


def is_sound(each: Record) -> bool:
    return each.value() != b"?" and b'"breaks": true' not in (each.value() or b"")


@given(st.lists(st.lists(EVENTS, max_size=8), max_size=5))
def test_the_rows_are_those_of_the_log_without_its_poison(batches):
    expected = fold()
    for batch in batches:
        expected.apply([each for each in batch if is_sound(each)])
    careful = fold(room=[1000], careful=True)
    for batch in batches:
        careful.apply(batch)
    assert rows(careful) == rows(expected)
    poisoned = [each for batch in batches for each in batch if not is_sound(each)]
    assert sorted(e.value for e in careful.held[0]) == sorted(e.value() for e in poisoned)
    if not poisoned:
        fast = fold(room=[0])
        for batch in batches:
            fast.apply(batch)
        assert rows(fast) == rows(expected)
