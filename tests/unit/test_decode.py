"""Envelopes: where type, id, time and payload lie, and what is said when they do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope
from migrator.settings import Topic


def opened(value: bytes, headers=None, **places):
    return Opener(Topic(**places)).open(value, lambda: headers)


def test_the_default_envelope_is_type_id_and_data():
    envelope = opened(b'{"type": "Placed", "id": 7, "data": {"a": 1}, "more": []}')
    assert (envelope.type, envelope.id, bytes(envelope.payload)) == ("Placed", 7, b'{"a": 1}')


def test_an_id_may_be_absent():
    assert opened(b'{"type": "Placed", "data": {}}').id is None


def test_parts_may_lie_under_other_names():
    envelope = opened(
        b'{"kind": "P", "at": "2026-01-02T03:04:05Z", "body": [1]}',
        type="kind",
        time="at",
        payload="body",
    )
    assert envelope.type == "P"
    assert envelope.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert bytes(envelope.payload) == b"[1]"


def test_parts_may_lie_in_headers_and_the_record_be_the_payload():
    envelope = opened(
        b'{"a": 1}',
        headers=[("t", b"Placed"), ("at", b"2026-01-02T03:04:05+00:00"), ("i", b"x")],
        type="header:t",
        id="header:i",
        time="header:at",
        payload=".",
    )
    assert (envelope.type, envelope.id, envelope.payload) == ("Placed", "x", b'{"a": 1}')
    assert envelope.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "places", "said"),
    [
        (b"\xff", {}, "malformed"),
        (b"[]", {}, "Expected `object`"),
        (b'{"data": {}}', {}, "missing required field `type`"),
        (b'{"type": "x"}', {}, "missing required field `data`"),
        (b'{"type": 1, "data": {}}', {}, "Expected `str`"),
        (b'{"data": {}}', {"type": "header:t"}, "the record has no header:t"),
        (b'{"type": "x", "data": {}}', {"time": "header:at"}, "no ISO 8601 time"),
    ],
)
def test_a_record_without_its_envelope_says_what_is_missing(value, places, said):
    with pytest.raises(NoEnvelope, match=said):
        opened(value, headers=[("at", b"yesterday")], **places)


@pytest.mark.parametrize(
    ("places", "plain"),
    [
        ({}, True),
        ({"time": "at"}, True),
        ({"time": "header:at"}, False),
        ({"type": "header:t"}, False),
        ({"payload": "."}, False),
    ],
)
def test_the_quick_way_is_taken_only_where_all_lies_in_the_envelope(places, plain):
    opener = Opener(Topic(**places))
    assert (opener.plain is not None) is plain
    if opener.plain:
        value = b'{"type": "x", "id": "i", "at": "2026-01-02T03:04:05Z", "data": {}}'
        quick, slow = opener.plain(value), opener.open(value, lambda: None)
        assert (quick.type, quick.id, quick.time, bytes(quick.payload)) == (
            slow.type,
            slow.id,
            slow.time,
            bytes(slow.payload),
        )
