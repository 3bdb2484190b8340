"""CloudEvents and Debezium: the envelopes that say themselves where their parts lie."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from migrator import Event
from migrator.errors import SettingsError
from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope
from migrator.projections.payload import payload_decoder
from migrator.settings import Topic

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
CLOUD_EVENT = {
    "specversion": "1.0",
    "type": "Placed",
    "source": "/shop",
    "id": "e1",
    "time": "2026-01-02T03:04:05Z",
    "datacontenttype": "application/json",
    "data": {"cents": 7},
}
BINARY = [
    ("ce_specversion", b"1.0"),
    ("ce_type", b"Placed"),
    ("ce_source", b"/shop"),
    ("ce_id", b"e1"),
    ("ce_time", b"2026-01-02T03:04:05Z"),
    ("content-type", b"application/json"),
]


class Placed(Event):
    cents: int


class Newer(Event, version=2, type="Placed"):
    cents: int


def opened(envelope: str, value: Any, headers=None, event: type = Placed, **places: Any) -> Any:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Opener(Topic(envelope=envelope, **places), [event]).open(raw, lambda: headers)


# CloudEvents


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (CLOUD_EVENT, STRUCTURED),
        (CLOUD_EVENT, [("Content-Type", b"Application/CloudEvents+json")]),
        (CLOUD_EVENT, None),
        ({"cents": 7}, BINARY),
        ({"cents": 7}, [(k, v) for k, v in BINARY if k != "content-type"]),
        ({**CLOUD_EVENT, "data": None, "data_base64": "eyJjZW50cyI6IDd9"}, STRUCTURED),
    ],
)
def test_a_cloud_event_is_opened_in_both_its_modes(value, headers):
    envelope = opened("cloudevents", value, headers)
    assert envelope[:3] == ("Placed", "e1", AT)
    assert payload_decoder(Placed)(envelope.payload) == Placed(cents=7)


def test_a_cloud_event_needs_no_time_and_no_data():
    bare = {k: v for k, v in CLOUD_EVENT.items() if k not in ("time", "data")}
    envelope = opened("cloudevents", bare, STRUCTURED)
    assert envelope.time is None
    with pytest.raises(msgspec.ValidationError, match="got `null`"):
        payload_decoder(Placed)(envelope.payload)


@pytest.mark.parametrize(
    ("value", "headers", "places"),
    [
        ({**CLOUD_EVENT, "version": 2}, STRUCTURED, {}),
        ({**CLOUD_EVENT, "dataversion": "2"}, STRUCTURED, {"version": "dataversion"}),
        (CLOUD_EVENT, [*STRUCTURED, ("v", b"2")], {"version": "header:v"}),
        ({}, [*BINARY, ("ce_version", b"2")], {}),
        ({}, [*BINARY, ("ce_dataversion", b"2")], {"version": "dataversion"}),
        ({}, [*BINARY, ("v", b"2")], {"version": "header:v"}),
    ],
)
def test_the_version_of_a_cloud_event_is_an_extension_or_a_header(value, headers, places):
    assert opened("cloudevents", value, headers, Newer, **places).version == 2


@pytest.mark.parametrize(
    ("value", "headers", "said"),
    [
        ({**CLOUD_EVENT, "specversion": "0.3"}, STRUCTURED, "specversion '0.3', expected 1.0"),
        ({**CLOUD_EVENT, "type": 1}, STRUCTURED, r"Expected `str`, got `int` - at `$.type`"),
        ({"data": {}}, STRUCTURED, "missing required field `specversion`"),
        ({"data": {}}, None, "no structured CloudEvent: Object missing required field"),
        (b"\xff", STRUCTURED, "no structured CloudEvent"),
        ([CLOUD_EVENT], [("content-type", b"application/cloudevents-batch+json")], "a batch"),
        ({**CLOUD_EVENT, "data_base64": "?"}, STRUCTURED, "data_base64 is no base64"),
        ({}, [("ce_specversion", b"2.0")], "specversion '2.0', expected 1.0"),
        ({}, [("ce_specversion", b"1.0")], "no header ce_type and no ce_id"),
        ({}, [h for h in BINARY if h[0] != "ce_id"], "it has no header ce_id"),
        ({}, [("ce_time", b"noon"), *BINARY], "header:ce_time is no ISO 8601 time: 'noon'"),
    ],
)
def test_what_is_no_cloud_event_is_said(value, headers, said):
    with pytest.raises(NoEnvelope) as caught:
        opened("cloudevents", value, headers)
    assert said in str(caught.value)


# Debezium


class Row(msgspec.Struct):
    id: int
    status: str


class Saved(Event, type=("orders.c", "orders.r", "orders.u")):
    after: Row
    before: Row | None = None


class Deleted(Event, type="orders.d"):
    before: Row


def change(op: str, **parts: Any) -> dict[str, Any]:
    source = {"connector": "postgresql", "table": "orders", "ts_ms": 1767323045000}
    return {"op": op, "source": source, "ts_ms": 1, "before": None, "after": None, **parts}


ROW = {"id": 7, "status": "new", "more": 1}
SCHEMA = {"type": "struct", "fields": [], "name": "shop.orders.Envelope"}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("op", ["c", "r", "u", "d", "t"])
def test_a_change_is_an_event_of_its_table_and_operation(op, wrapped):
    value = change(op, after=ROW, before=ROW)
    envelope = opened("debezium", {"schema": SCHEMA, "payload": value} if wrapped else value)
    assert envelope[:3] == (f"orders.{op}", None, AT)
    assert payload_decoder(Saved)(envelope.payload).after == Row(7, "new")
    assert payload_decoder(Deleted)(envelope.payload).before == Row(7, "new")


def test_a_table_may_have_a_column_named_as_the_wrapper():
    value = change("c", after={"payload": 1, "schema": 2})
    assert opened("debezium", value).type == "orders.c"


def test_a_collection_of_mongodb_is_a_table():
    value = change("u", source={"collection": "orders"}, ts_ms=1767323045000)
    assert opened("debezium", value)[:3] == ("orders.u", None, AT)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"id": 7, "status": "new"}, "it has no op"),
        ({"op": "c"}, "it has no source"),
        (change("x"), "op is 'x', expected one of c, r, u, d, t"),
        (change("m"), "op is 'm', expected one of"),
        (change("c", source={}), "source has no table"),
        ({"schema": {}, "payload": 7}, "no change event of Debezium: Expected `object`, got `int`"),
        ({"schema": {}, "payload": None}, "Expected `object`, got `null`"),
        ([], "no change event of Debezium: Expected `object`, got `array`"),
        (b"{", "no change event of Debezium: Input data was truncated"),
        (change("c", source={"table": 7}), r"got `int` - at `$.source.table`"),
    ],
)
def test_what_is_no_change_is_said(value, said):
    with pytest.raises(NoEnvelope) as caught:
        opened("debezium", value)
    assert said in str(caught.value)


def test_a_flattened_change_is_told_to_be_plain():
    with pytest.raises(NoEnvelope) as caught:
        opened("debezium", {"id": 7, "status": "new"})
    assert 'envelope = "plain"' in caught.value.next_step


def test_a_change_has_a_version_only_in_a_header():
    with pytest.raises(SettingsError, match="Debezium's change events have none"):
        opened("debezium", change("c"), event=Newer)
    headers = [("v", b"2")]
    assert opened("debezium", change("c"), headers, Newer, version="header:v").version == 2


@given(st.binary(max_size=30) | st.dictionaries(st.text(max_size=9), st.none() | st.integers()))
@hypothesis_settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("envelope", ["cloudevents", "debezium", "plain"])
def test_no_value_whatever_ends_in_a_bug(envelope, value):
    with contextlib.suppress(NoEnvelope):
        opened(envelope, value)


# Settings


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ("type", "data", "text")),
        ({"format": "avro"}, ("schema:name", ".", "text")),
        ({"format": "protobuf", "type": "kind"}, ("kind", ".", "text")),
        ({"envelope": "debezium"}, ("type", "data", "json")),
        ({"envelope": "debezium", "format": "avro"}, ("type", "data", "avro")),
        ({"envelope": "debezium", "key": "text"}, ("type", "data", "text")),
        ({"envelope": "cloudevents", "format": "avro"}, ("type", "data", "text")),
    ],
)
def test_a_topic_says_only_what_is_unusual(said, expected):
    topic = Topic(**said)
    assert (topic.type, topic.payload, topic.key) == expected


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"envelope": "debezium", "type": "kind"}, "debezium itself says where type lies"),
        ({"envelope": "cloudevents", "id": "i", "payload": "."}, "where id, payload lies"),
        ({"type": "schema:name"}, "json has no schema"),
        ({"format": "avro", "id": "schema:name"}, "only a type lies in a schema"),
        ({"format": "avro", "type": "schema:id"}, "only a type lies in a schema"),
        ({"format": "xml"}, "Input should be 'json', 'avro', 'protobuf' or 'jsonschema'"),
        ({"envelope": "kafka"}, "Input should be 'plain', 'cloudevents' or 'debezium'"),
        ({"key": "xml"}, "Input should be 'text', 'json'"),
    ],
)
def test_a_topic_that_cannot_be_is_refused(said, problem):
    with pytest.raises(ValueError) as caught:
        Topic(**said)
    assert problem in str(caught.value)
