"""Keys that are more than text: their value counts, not their bytes."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from migrator.kafka import registry as registry_module
from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope
from migrator.kafka.registry import Registry
from migrator.settings import Topic
from tests import protos


@pytest.fixture
def client():
    return SchemaRegistryClient.new_client({"url": "mock://"})


@pytest.fixture(autouse=True)
def _registry(client, monkeypatch):
    monkeypatch.setattr(registry_module, "_registry", lambda *_: Registry(client, "mock://"))


def key(raw: Any, headers=None, **places: Any) -> str | None:
    read = Opener(Topic(**places)).key
    assert read is not None
    return read(raw, lambda: headers)


def record(*names: str, doc: str = "") -> str:
    fields = [{"name": name, "type": "long"} for name in names]
    return json.dumps({"type": "record", "name": "Key", "doc": doc, "fields": fields})


def written(serializer, document, headers=None):
    return serializer(document, SerializationContext("orders", MessageField.KEY, headers))


def test_a_key_of_text_is_not_touched():
    assert Opener(Topic()).key is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'"o1"', "o1"),
        ('"o1"', "o1"),
        (b"7", "7"),
        (b'{"id": 7}', "7"),
        (b'{"id": "x"}', "x"),
        (b"null", None),
        (None, None),
    ],
)
def test_a_key_of_json_is_its_value_or_its_only_field(raw, expected):
    assert key(raw, key="json") == expected


def test_a_key_field_picks_one_of_several():
    assert key(b'{"tenant": 1, "id": 7}', key="json", key_field="id") == "7"


@pytest.mark.parametrize(
    "raw", [b'{"id": 7}', b'{"schema": {"type": "struct"}, "payload": {"id": 7}}']
)
def test_debeziums_keys_come_with_and_without_their_schema(raw):
    assert key(raw, envelope="debezium") == "7"


def test_one_key_under_two_schemas_is_one_key(client):
    keys = [written(AvroSerializer(client, record("id", doc=doc)), {"id": 7}) for doc in ("a", "b")]
    assert keys[0] != keys[1]
    assert {key(raw, key="avro") for raw in keys} == {"7"}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ("string", "o1", "o1"),
        ("long", 7, "7"),
        ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=7), str(uuid.UUID(int=7))),
    ],
)
def test_a_key_of_avro_may_be_simple(client, schema, value, expected):
    raw = written(AvroSerializer(client, json.dumps(schema)), value)
    assert key(raw, key="avro") == expected


def test_a_keys_schema_may_lie_in_its_own_header(client):
    headers: list[Any] = []
    conf = {"schema.id.serializer": header_schema_id_serializer}
    raw = written(AvroSerializer(client, record("id"), conf=conf), {"id": 7}, headers)
    assert [name for name, _ in headers] == ["__key_schema_id"]
    assert key(raw, headers, key="avro") == "7"


def test_keys_of_protobuf_and_json_schema_are_read(client):
    message = protos.message("Placed")(customer="c")
    raw = written(ProtobufSerializer(type(message), client), message)
    assert key(raw, key="protobuf", key_field="customer") == "c"
    raw = written(JSONSerializer('{"title": "Key", "type": "object"}', client), {"id": 7})
    assert key(raw, key="jsonschema") == "7"


@pytest.mark.parametrize(
    ("raw", "places", "said"),
    [
        (b"o1", {"key": "json"}, "the key is no JSON"),
        (b'{"a": 1, "b": 2}', {"key": "json"}, "the key has the fields a, b, expected one"),
        (b'{"a": 1}', {"key": "json", "key_field": "id"}, "the fields a, expected id"),
        (b"{}", {"key": "json"}, "the key has the fields none, expected one"),
        (b'{"a": {"b": 1}}', {"key": "json"}, "no text or whole number: {'b': 1}"),
        (b"[1]", {"key": "json"}, "no text or whole number: [1]"),
        (b"1.5", {"key": "json"}, "no text or whole number: 1.5"),
        (b"true", {"key": "json"}, "no text or whole number: True"),
        (b"o1", {"key": "avro"}, "the key begins with the byte 0x6f, expected 0x00"),
        (b"\0\0\0\0\x09x", {"key": "avro"}, "schema 9 is not in the schema registry"),
    ],
)
def test_a_key_that_cannot_be_read_is_said(raw, places, said):
    with pytest.raises(NoEnvelope) as caught:
        key(raw, **places)
    assert said in str(caught.value)
