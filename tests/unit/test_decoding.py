"""Decoding a batch: the one pass and the record by record one give the same events."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator import Event
from migrator.projections.decoding import BatchDecoder, Undecodable, UnknownType
from migrator.settings import Topic


class Added(Event):
    amount: int


class Closed(Event):
    pass


EVENTS: dict[str, type | None] = {"Added": Added, "Closed": Closed, "Seen": None}


class Record:
    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None


def record(event_type: str | None, data: Any = None, **more: Any) -> Record:
    if event_type is None:
        return Record(None)
    return Record(json.dumps({"type": event_type, "data": data or {}, **more}).encode())


def decoder(*, with_meta: bool = True, **places: Any) -> BatchDecoder:
    return BatchDecoder(Topic(**places), EVENTS, with_meta=with_meta)


def shown(events: list[Any]) -> list[Any]:
    return [(e.type, e.payload, e.id, e.time) for e in events]


records = st.lists(
    st.one_of(
        st.builds(lambda n, i: record("Added", {"amount": n}, id=i), st.integers(-9, 9), st.text()),
        st.builds(lambda: record("Closed", at="2026-01-02T03:04:05Z")),
        st.builds(lambda: record("Seen", {"whatever": [1]})),
        st.just(record(None)),
    )
)


@given(records)
def test_a_batch_gives_what_its_records_give_one_by_one(batch):
    for with_meta in (True, False):
        whole = decoder(with_meta=with_meta, time="at")
        alone = [event for each in batch for event in whole.decode([each])]
        assert shown(whole.decode(batch)) == shown(alone)
        assert [type(e) for e in whole.decode(batch)] == [type(e) for e in alone]


def test_the_one_pass_takes_a_batch_without_opening_each_record(monkeypatch):
    whole = decoder()
    monkeypatch.setattr(whole, "_one", None)
    added, seen = whole.decode([record("Added", {"amount": 1}, id="7"), record("Seen")])
    assert (added.type, added.payload, added.id) == ("Added", Added(amount=1), "7")
    assert (seen.type, seen.payload) == ("Seen", None)


def test_without_a_meta_an_id_is_not_even_looked_at():
    (event,) = decoder(with_meta=False).decode([record("Closed", id=["no", "id"])])
    assert event.id is None


@pytest.mark.parametrize(
    ("bad", "event_type", "cause"),
    [
        (record("Added", {"amount": "x"}), "Added", msgspec.ValidationError),
        (record("Moved"), "Moved", UnknownType),
        (Record(b"{"), None, msgspec.DecodeError),
        (Record(b'{"data": {}}'), None, msgspec.ValidationError),
    ],
    ids=["payload", "unknown", "no JSON", "no type"],
)
def test_the_record_that_does_not_decode_is_named(bad, event_type, cause):
    with pytest.raises(Undecodable) as stopped:
        decoder().decode([record("Closed"), bad, record("Closed")])
    assert stopped.value.record is bad
    assert stopped.value.type == event_type
    assert isinstance(stopped.value.__cause__, cause)
