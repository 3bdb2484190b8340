"""Avro, Protobuf and JSON Schema through a registry: what arrives, and what is said of wrong bytes."""

from __future__ import annotations

import contextlib
import enum
import io
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import msgspec
import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from migrator import Event
from migrator.kafka import registry as registry_module
from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope
from migrator.kafka.registry import NoSchema, Registry
from migrator.kafka.schemas import SchemaReader
from migrator.projections.payload import payload_decoder
from migrator.settings import Topic
from tests import protos

PLACED = {
    "type": "record",
    "name": "Placed",
    "namespace": "shop.v1",
    "fields": [
        {"name": "customer", "type": "string"},
        {"name": "cents", "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
GONE = {"type": "record", "name": "shop.v1.Gone", "fields": []}


class Placed(Event):
    customer: str
    cents: int
    note: str | None = None


@pytest.fixture
def client():
    return SchemaRegistryClient.new_client({"url": "mock://"})


@pytest.fixture(autouse=True)
def _registry(client, monkeypatch):
    """What a topic's openers ask is this test's mock."""
    monkeypatch.setattr(registry_module, "_registry", lambda *_: Registry(client, "mock://"))


def written(serializer, document, *, headers=None, field=MessageField.VALUE):
    return serializer(document, SerializationContext("orders", field, headers))


def read(fmt: str, value: bytes, headers=None, **places: Any) -> Any:
    return Opener(Topic(format=fmt, **places)).open(value, lambda: headers)


def avro(client, schema, document, *, in_header=False):
    """The value and its headers, as Confluent's own serialiser writes them."""
    headers: list[Any] = []
    conf = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    value = written(
        AvroSerializer(client, json.dumps(schema), conf=conf), document, headers=headers
    )
    return value, headers


def framed(client, schema: str, kind: str, body: bytes) -> bytes:
    number = client.register_schema("s", Schema(schema, kind))
    return b"\0" + number.to_bytes(4, "big") + body


# Avro


@pytest.mark.parametrize("in_header", [False, True])
def test_an_avro_record_is_an_event_of_its_schemas_name(client, in_header):
    value, headers = avro(client, PLACED, {"customer": "c", "cents": 7}, in_header=in_header)
    assert bool(headers) is in_header
    envelope = read("avro", value, headers)
    assert envelope.type == "Placed"
    assert payload_decoder(Placed)(envelope.payload) == Placed(customer="c", cents=7)
    assert read("avro", value, headers, type="schema:fullname").type == "shop.v1.Placed"


def test_parts_of_an_avro_envelope_may_be_fields_and_headers(client):
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    schema = {
        "type": "record",
        "name": "Envelope",
        "fields": [
            {"name": "kind", "type": "string"},
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "body", "type": PLACED},
        ],
    }
    document = {"kind": "Placed", "id": uuid.UUID(int=7), "at": at}
    value, _ = avro(client, schema, {**document, "body": {"customer": "c", "cents": 1}})
    envelope = read("avro", value, type="kind", id="id", time="at", payload="body")
    assert (envelope.type, envelope.id, envelope.time) == ("Placed", str(uuid.UUID(int=7)), at)
    assert payload_decoder(Placed)(envelope.payload).cents == 1
    envelope = read("avro", value, [("t", b"Other")], type="header:t", payload=".")
    assert envelope.type == "Other"
    assert envelope.payload["kind"] == "Placed"


class Colour(enum.Enum):
    RED = "RED"


class Line(msgspec.Struct):
    sku: str


class Everything(Event):
    money: Decimal
    fixed: Decimal
    at: datetime
    micros: datetime
    local: datetime
    day: date
    clock: time
    ident: uuid.UUID
    colour: Colour
    raw: bytes
    ratio: float
    lines: list[Line]
    counts: dict[str, int]
    maybe: Line | None


LOGICAL = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {
            "name": "money",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 4},
        },
        {
            "name": "fixed",
            "type": {
                "type": "fixed",
                "name": "F",
                "size": 8,
                "logicalType": "decimal",
                "precision": 10,
                "scale": 2,
            },
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "ident", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "colour", "type": {"type": "enum", "name": "C", "symbols": ["RED", "BLUE"]}},
        {"name": "raw", "type": "bytes"},
        {"name": "ratio", "type": "double"},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [{"name": "sku", "type": "string"}],
                },
            },
        },
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {"name": "maybe", "type": ["null", "Line"]},
    ],
}
MICROS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1))  # noqa: DTZ001
MILLIS = MICROS.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
CENTS = st.integers(-(10**9), 10**9)
DOCUMENTS = st.fixed_dictionaries(
    {
        "money": st.integers(-(10**25), 10**25).map(lambda n: Decimal(n).scaleb(-4)),
        "fixed": CENTS.map(lambda n: Decimal(n).scaleb(-2)),
        "at": MILLIS.map(lambda at: at.replace(tzinfo=UTC)),
        "micros": MICROS.map(lambda at: at.replace(tzinfo=UTC)),
        "local": MICROS,
        "day": st.dates(),
        "clock": st.times(),
        "ident": st.uuids(),
        "colour": st.just("RED"),
        "raw": st.binary(max_size=9),
        "ratio": st.floats(allow_nan=False),
        "lines": st.lists(st.fixed_dictionaries({"sku": st.text(max_size=5)}), max_size=3),
        "counts": st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1)),
        "maybe": st.none() | st.fixed_dictionaries({"sku": st.text(max_size=5)}),
    }
)


@given(document=DOCUMENTS)
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_avros_logical_types_arrive_as_they_were(client, document):
    value, _ = avro(client, LOGICAL, document)
    event = payload_decoder(Everything)(read("avro", value).payload)
    expected = {
        **document,
        "colour": Colour.RED,
        "lines": [Line(**line) for line in document["lines"]],
        "maybe": None if document["maybe"] is None else Line(**document["maybe"]),
    }
    assert msgspec.structs.asdict(event) == expected


def test_a_record_of_a_union_is_an_event_of_its_branch(client):
    schema = json.dumps([PLACED, GONE])
    for branch, document in (("Placed", {"customer": "c", "cents": 1}), ("Gone", {})):
        serializer = AvroSerializer(client, schema)
        value = written(serializer, (f"shop.v1.{branch}", document))
        envelope = read("avro", value)
        assert envelope.type == branch
        assert {**envelope.payload, "note": None} == {**document, "note": None}


def test_schemas_that_others_refer_to_are_fetched_each_once(client, monkeypatch):
    for name, refers_to in (("Money", []), ("Net", ["Money"]), ("Gross", ["Money"])):
        fields = [{"name": r.lower(), "type": r} for r in refers_to] or [
            {"name": "cents", "type": "long"}
        ]
        schema = json.dumps({"type": "record", "name": name, "fields": fields})
        references = [SchemaReference(r, r, 1) for r in refers_to]
        client.register_schema(name, Schema(schema, "AVRO", references))
    body = io.BytesIO()
    both = [{"name": "net", "type": "Net"}, {"name": "gross", "type": "Gross"}]
    whole = {"type": "record", "name": "Sale", "fields": both}
    references = [SchemaReference(r, r, 1) for r in ("Net", "Gross")]
    number = client.register_schema("Sale", Schema(json.dumps(whole), "AVRO", references))
    fastavro.schemaless_writer(
        body,
        fastavro.parse_schema(
            {
                "type": "record",
                "name": "Sale",
                "fields": [{"name": "net", "type": "long"}, {"name": "gross", "type": "long"}],
            }
        ),
        {"net": 1, "gross": 2},
    )
    asked = []
    get_version = client.get_version
    monkeypatch.setattr(
        client, "get_version", lambda s, v, **k: asked.append(s) or get_version(s, v)
    )
    envelope = read("avro", b"\0" + number.to_bytes(4, "big") + body.getvalue())
    assert envelope.payload == {"net": {"money": {"cents": 1}}, "gross": {"money": {"cents": 2}}}
    assert sorted(asked) == ["Gross", "Money", "Net"]


# Protobuf


@pytest.mark.parametrize("in_header", [False, True])
def test_a_protobuf_message_is_an_event_of_its_messages_name(client, in_header):
    headers: list[Any] = []
    conf = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    for name, expected in (("Placed", "Placed"), ("Outer.Inner", "Inner")):
        message = protos.message(name)(customer="c", cents=2**60)
        headers.clear()
        value = written(ProtobufSerializer(type(message), client, conf), message, headers=headers)
        envelope = read("protobuf", value, headers)
        assert envelope.type == expected
        assert payload_decoder(Placed)(envelope.payload) == Placed(customer="c", cents=2**60)
    assert read("protobuf", value, headers, type="schema:fullname").type == "shop.Outer.Inner"


def test_every_kind_of_protobuf_field_arrives_as_pythons(client):
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    message = protos.message("Everything")()
    message.at.FromDatetime(at)
    message.wait.FromTimedelta(timedelta(seconds=1.5))
    message.money.MergeFromString(protos.decimal(Decimal("-123456789012345678901.25")))
    message.wrapped.value = 5
    message.colour = 1
    message.raw = b"\xff"
    message.items.add(customer="a", cents=1)
    message.names.extend(["x", "y"])
    message.counts["a"] = 1
    message.lines["b"].customer = "z"
    message.chosen = 7
    value = written(ProtobufSerializer(type(message), client), message)
    assert read("protobuf", value).payload == {
        "at": at,
        "wait": timedelta(seconds=1.5),
        "money": Decimal("-123456789012345678901.25"),
        "wrapped": 5,
        "colour": "BLUE",
        "raw": b"\xff",
        "items": [{"customer": "a", "cents": 1}],
        "names": ["x", "y"],
        "counts": {"a": 1},
        "lines": {"b": {"customer": "z", "cents": 0}},
        "chosen": 7,
        "zero": 0,
    }


def test_an_unset_protobuf_field_is_zero_or_absent(client):
    message = protos.message("Everything")()
    value = written(ProtobufSerializer(type(message), client), message)
    assert read("protobuf", value).payload == {
        "colour": "RED",
        "raw": b"",
        "items": [],
        "names": [],
        "counts": {},
        "lines": {},
        "zero": 0,
    }


def test_a_number_that_an_enum_does_not_name_stays_one(client):
    message = protos.message("Everything")(colour=9)
    value = written(ProtobufSerializer(type(message), client), message)
    assert read("protobuf", value).payload["colour"] == 9


def test_protobuf_files_that_import_others_are_fetched(client):
    message = protos.importing()(placed={"customer": "c", "cents": 3})
    value = written(ProtobufSerializer(type(message), client), message)
    assert read("protobuf", value).payload == {"placed": {"customer": "c", "cents": 3}}


# JSON Schema


JSON_SCHEMA = json.dumps({"title": "Placed", "type": "object"})


@pytest.mark.parametrize("in_header", [False, True])
def test_json_with_a_schema_is_an_event_of_its_title(client, in_header):
    headers: list[Any] = []
    conf = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    serializer = JSONSerializer(JSON_SCHEMA, client, conf=conf)
    value = written(serializer, {"customer": "c", "cents": 7}, headers=headers)
    envelope = read("jsonschema", value, headers)
    assert envelope.type == "Placed"
    assert payload_decoder(Placed)(envelope.payload) == Placed(customer="c", cents=7)


def test_an_envelope_may_lie_in_json_with_a_schema(client):
    value = framed(client, JSON_SCHEMA, "JSON", b'{"type": "P", "id": 3, "data": {"cents": 1}}')
    envelope = read("jsonschema", value, type="type", id="id", payload="data")
    assert (envelope.type, envelope.id, bytes(envelope.payload)) == ("P", 3, b'{"cents": 1}')
    assert Opener(Topic(format="jsonschema", type="type", id="id", payload="data")).plain is None


# Wrong bytes

GUID = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("value", "headers", "said"),
    [
        (b"", None, "the value is empty, expected 0x00 and a schema id"),
        (b'{"a": 1}', None, "begins with the byte 0x7b, as JSON text does, expected 0x00"),
        (b"\x02abcdefg", None, "begins with the byte 0x02, expected 0x00"),
        (b"\x01" + GUID.bytes, None, "begins with the byte 0x01, expected 0x00"),
        (b"\0\0\0", None, "ends within its schema id (3 bytes)"),
        (b"\0\0\0\0\x63ab", None, "schema 99 is not in the schema registry (mock://)"),
        (b"ab", b"\x01" + GUID.bytes, f"schema {GUID} is not in the schema registry"),
        (b"ab", b"\0\0\0\0\x63", "schema 99 is not in the schema registry"),
        (b"ab", b"\x01abc", "the header __value_schema_id ends within its schema id (4 bytes)"),
        (b"ab", b"\x07" + GUID.bytes, "the header __value_schema_id begins with the byte 0x07"),
        (b"ab", b"", "the header __value_schema_id is empty"),
    ],
)
@pytest.mark.parametrize("fmt", ["avro", "jsonschema"])
def test_a_schema_id_that_is_none_is_said(value, headers, said, fmt):
    with pytest.raises(NoEnvelope) as caught:
        read(fmt, value, None if headers is None else [("__value_schema_id", headers)])
    assert said in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x02c", "does not fit its schema 1: "),
        (b"", "does not fit its schema 1: EOFError"),
        (b"\x02c\x02\x00left", "4 bytes are left after the Avro value"),
        (b"\x02c\x02\x08", "does not fit its schema 1: "),
        (b"\x02\xff\x02\x00", "does not fit its schema 1: UnicodeDecodeError"),
    ],
)
def test_a_value_that_is_not_of_its_avro_schema_is_said(client, body, said):
    with pytest.raises(NoEnvelope) as caught:
        read("avro", framed(client, json.dumps(PLACED), "AVRO", body))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "ends within the path of its Protobuf message"),
        (b"\x80\x80", "ends within the path of its Protobuf message"),
        (b"\x02\x64", "the value is of message 50 of shop, which has"),
        (b"\x04\x00\x64", "the value is of message 50 of shop.Placed, which has 0"),
        (b"\x01", "the path of the Protobuf message has -1 parts"),
        (b"\x00\xff\xff", "the value is no shop.Placed"),
    ],
)
def test_a_value_that_is_not_of_its_protobuf_schema_is_said(client, body, said):
    with pytest.raises(NoEnvelope) as caught:
        read("protobuf", framed(client, protos.text(), "PROTOBUF", body))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fmt", "schema", "kind", "said"),
    [
        ("avro", JSON_SCHEMA, "JSON", "schema 1 is JSON, expected AVRO"),
        ("protobuf", json.dumps(PLACED), "AVRO", "schema 1 is AVRO, expected PROTOBUF"),
        ("avro", '{"type": "nothing"}', "AVRO", "schema 1 cannot be used: UnknownType"),
        ("protobuf", "", "PROTOBUF", "gives the Protobuf schema 1"),
        ("avro", "no json", "AVRO", "schema 1 cannot be used: JSONDecodeError"),
        ("protobuf", 'syntax = "proto3"; message é {}', "PROTOBUF", "gives the Protobuf schema 1"),
    ],
)
def test_a_schema_that_cannot_be_used_is_said(client, fmt, schema, kind, said):
    with pytest.raises(NoSchema) as caught:
        read(fmt, framed(client, schema, kind, b"\0abc"))
    assert said in str(caught.value)


def test_a_schema_whose_reference_is_gone_is_said(client):
    schema = json.dumps({"type": "record", "name": "S", "fields": [{"name": "m", "type": "M"}]})
    number = client.register_schema("S", Schema(schema, "AVRO", [SchemaReference("M", "m", 3)]))
    with pytest.raises(
        NoSchema, match="version 3 of the subject m, to which a schema refers, is n"
    ):
        read("avro", b"\0" + number.to_bytes(4, "big") + b"x")


def test_a_schema_with_rules_for_its_readers_is_refused(client):
    from confluent_kafka.schema_registry import Rule, RuleKind, RuleMode, RuleSet

    kind, mode = RuleKind.TRANSFORM, RuleMode.WRITEREAD
    rule = Rule("secret", "", kind, mode, "ENCRYPT", [], None, None, None, None, disabled=False)
    number = client.register_schema(
        "s", Schema(json.dumps(PLACED), "AVRO", [], None, RuleSet(None, [rule]))
    )
    with pytest.raises(NoSchema, match=r"the rule secret \(ENCRYPT\) for its readers"):
        read("avro", b"\0" + number.to_bytes(4, "big") + b"x")


def test_a_payload_that_does_not_fit_its_class_names_the_field(client):
    schema = {**PLACED, "fields": [{"name": "customer", "type": "long"}]}
    value, _ = avro(client, schema, {"customer": 1})
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `str`, got `int` - at `\$.customer`"
    ):
        payload_decoder(Placed)(read("avro", value).payload)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"type": "kind"}, "the record has no field kind"),
        ({"type": "cents"}, "the field cents is no text: 7"),
        ({"payload": "body"}, "the record has no field body"),
        ({"type": "header:t"}, "the record has no header:t"),
        ({"time": "customer"}, "customer is no ISO 8601 time: 'c'"),
        ({"time": "cents"}, "cents is no ISO 8601 time: 7"),
    ],
)
def test_a_document_without_its_envelope_says_what_is_missing(client, places, said):
    value, _ = avro(client, PLACED, {"customer": "c", "cents": 7})
    with pytest.raises(NoEnvelope) as caught:
        read("avro", value, **places)
    assert said in str(caught.value)


def test_a_simple_avro_value_has_no_name_to_be_a_type(client):
    value, _ = avro(client, "string", "text")
    with pytest.raises(NoEnvelope, match="the record has no schema:name"):
        read("avro", value)
    with pytest.raises(NoEnvelope, match="the value is no record: 'text'"):
        read("avro", value, type="kind")


def test_each_schema_is_fetched_once(client, monkeypatch):
    value, _ = avro(client, PLACED, {"customer": "c", "cents": 7})
    reader, asked = SchemaReader("avro", Registry(client, "here"), "value"), []
    get = client.get_schema
    monkeypatch.setattr(client, "get_schema", lambda i, **k: asked.append(i) or get(i))
    for _ in range(3):
        reader.read(value, list)
    assert asked == [1]


@given(value=st.binary(max_size=40), in_header=st.none() | st.binary(max_size=20))
@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("fmt", ["avro", "protobuf", "jsonschema"])
def test_no_bytes_whatever_end_in_a_bug(client, fmt, value, in_header):
    schemas = {"avro": json.dumps(PLACED), "protobuf": protos.text(), "jsonschema": JSON_SCHEMA}
    kinds = {"avro": "AVRO", "protobuf": "PROTOBUF", "jsonschema": "JSON"}
    client.register_schema("s", Schema(schemas[fmt], kinds[fmt]))
    headers = None if in_header is None else [("__value_schema_id", in_header)]
    for data in (value, b"\0\0\0\0\1" + value):
        with contextlib.suppress(NoEnvelope):
            read(fmt, data, headers)
