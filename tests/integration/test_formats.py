"""Every format and envelope through a real topic: workers fold what serialisers wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from migrator.errors import CannotConnect, MigratorError, Refused
from migrator.projections.rebuild import Options, rebuild
from tests import projects, protos
from tests.schema_registry import StandIn

EVENTS = """
    from datetime import datetime
    import msgspec
    from migrator import Event, Meta, Projection, on
    from sqlalchemy import BigInteger
    from sqlalchemy.orm import Mapped, mapped_column


    class Placed(Event):
        customer: str
        cents: int


    class Order(Projection, topic="{topic}"):
        __tablename__ = "orders"

        order_id: Mapped[str] = mapped_column(primary_key=True)
        customer: Mapped[str | None]
        cents: Mapped[int] = mapped_column(BigInteger, default=0)
        seen_as: Mapped[str | None]

        @on(Placed)
        def placed(self, event: Placed, meta: Meta) -> None:
            self.customer, self.cents, self.seen_as = event.customer, event.cents, meta.key
"""
CHANGES = """
    import msgspec
    from migrator import Event, Projection, on
    from sqlalchemy.orm import Mapped, mapped_column


    class Row(msgspec.Struct):
        id: int
        status: str


    class Saved(Event, type=("orders.c", "orders.r", "orders.u")):
        after: Row


    class Deleted(Event, type="orders.d"):
        pass


    class Order(Projection, topic="{topic}"):
        __tablename__ = "orders"

        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str]

        @on(Saved)
        def saved(self, event: Saved) -> None:
            self.status = event.after.status

        @on(Deleted)
        def deleted(self, event: Deleted) -> None:
            self.delete()
"""
PLACED = json.dumps(
    {
        "type": "record",
        "name": "Placed",
        "fields": [{"name": "customer", "type": "string"}, {"name": "cents", "type": "long"}],
    }
)
PAYLOADS = [{"customer": f"c{n}", "cents": n * 2**33} for n in range(20)]


@pytest.fixture
def stand_in():
    with StandIn().running() as running:
        yield running


@pytest.fixture
def make_project(tmp_path, make_settings, topic, stand_in):
    """`make_project(source, format=..., ...)`: settings whose topic is read that way, and the topic."""

    def made(source: str = EVENTS, **places: str):
        name = topic("orders")
        projects.write(tmp_path, source.format(topic=name))
        registry = {"url": stand_in.url, "max.retries": "0"}
        return make_settings(tmp_path, topics={name: places}, schema_registry=registry), name

    return made


@pytest.fixture
def send(brokers):
    """`send(topic, [(key, value, headers), ...])`"""

    def sent(name: str, records: list[tuple[Any, Any, Any]], partition: int = -1) -> None:
        producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
        for key, value, headers in records:
            producer.produce(name, value, key, partition, headers=headers or [])
        assert producer.flush(60) == 0

    return sent


def serializer(fmt: str, client: Any, conf: dict[str, Any]) -> tuple[Any, Any]:
    """The serialiser of a format, and what makes of a payload what it takes."""
    if fmt == "avro":
        return AvroSerializer(client, PLACED, conf=conf), lambda payload: payload
    if fmt == "protobuf":
        made = protos.message("Placed")
        return ProtobufSerializer(made, client, conf), lambda payload: made(**payload)
    schema = json.dumps({"title": "Placed", "type": "object"})
    return JSONSerializer(schema, client, conf=conf), lambda payload: payload


@pytest.mark.parametrize("in_header", [False, True], ids=["prefix", "header"])
@pytest.mark.parametrize("fmt", ["avro", "protobuf", "jsonschema"])
def test_a_topic_of_every_format_is_folded(make_project, send, stand_in, db, fmt, in_header):
    settings, topic = make_project(format=fmt)
    conf = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
    serialize, make = serializer(fmt, stand_in.client, conf)
    records = []
    for number, payload in enumerate(PAYLOADS):
        headers: list[Any] = []
        context = SerializationContext(topic, MessageField.VALUE, headers)
        records.append((f"o{number}", serialize(make(payload), context), headers))
    send(topic, [*records, ("o3", None, None)])
    rebuild(settings, ["orders"])
    rows = db.execute("SELECT order_id, customer, cents FROM orders ORDER BY cents").fetchall()
    expected = [(f"o{n}", p["customer"], p["cents"]) for n, p in enumerate(PAYLOADS)]
    assert rows == [row for row in expected if row[0] != "o3"]


def test_keys_of_avro_are_the_rows_keys_whatever_their_schema(make_project, send, stand_in, db):
    settings, topic = make_project(format="avro", key="avro")
    serialize, _ = serializer("avro", stand_in.client, {})
    value = SerializationContext(topic, MessageField.VALUE)
    records = []
    for doc in ("first", "second"):
        fields = [{"name": "id", "type": "string"}]
        schema = json.dumps({"type": "record", "name": "Key", "doc": doc, "fields": fields})
        key = AvroSerializer(stand_in.client, schema)(
            {"id": "o1"}, SerializationContext(topic, MessageField.KEY)
        )
        records.append((key, serialize({"customer": doc, "cents": 1}, value), None))
    assert records[0][0] != records[1][0]
    # A partitioner would hash their bytes, which differ.
    send(topic, records, partition=0)
    rebuild(settings, ["orders"])
    assert db.execute("SELECT * FROM orders").fetchall() == [("o1", "second", 1, "o1")]


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_cloud_events_are_folded(make_project, send, db, mode):
    settings, topic = make_project(envelope="cloudevents")
    records: list[Any] = []
    for number, payload in enumerate(PAYLOADS):
        attributes = {"specversion": "1.0", "type": "Placed", "source": "/s", "id": str(number)}
        if mode == "structured":
            headers = [("content-type", b"application/cloudevents+json")]
            value = json.dumps({**attributes, "data": payload}).encode()
        else:
            headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
            value = json.dumps(payload).encode()
        records.append((f"o{number}", value, headers))
    send(topic, records)
    rebuild(settings, ["orders"])
    total = sum(p["cents"] for p in PAYLOADS)
    assert db.execute("SELECT count(*), sum(cents) FROM orders").fetchone() == (20, total)


SOURCE = {"table": "orders", "ts_ms": 1}
CHANGED = [
    (1, {"op": "r", "before": None, "after": {"id": 1, "status": "old"}}),
    (2, {"op": "c", "before": None, "after": {"id": 2, "status": "new"}}),
    (1, {"op": "u", "before": None, "after": {"id": 1, "status": "paid"}}),
    (3, {"op": "c", "before": None, "after": {"id": 3, "status": "new"}}),
    (3, {"op": "d", "before": {"id": 3, "status": "new"}, "after": None}),
    (3, None),
]
CHANGE_AVRO = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.public.orders",
    "fields": [
        {
            "name": "before",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Value",
                    "fields": [{"name": "id", "type": "int"}, {"name": "status", "type": "string"}],
                },
            ],
        },
        {"name": "after", "type": ["null", "Value"]},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "fields": [{"name": "table", "type": "string"}, {"name": "ts_ms", "type": "long"}],
            },
        },
        {"name": "op", "type": "string"},
    ],
}


@pytest.mark.parametrize("form", ["json", "json with its schema", "avro"])
def test_the_changes_of_a_table_give_the_table(make_project, send, stand_in, db, form):
    fmt = "avro" if form == "avro" else "json"
    settings, topic = make_project(CHANGES, envelope="debezium", format=fmt)
    key_schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]}
    avro_key = AvroSerializer(stand_in.client, json.dumps(key_schema))
    avro_value = AvroSerializer(stand_in.client, json.dumps(CHANGE_AVRO))

    def written(document: Any, field: str) -> bytes | None:
        if document is None:
            return None
        if form == "avro":
            made = avro_key if field == MessageField.KEY else avro_value
            return bytes(made(document, SerializationContext(topic, field)) or b"")
        wrapped = {"schema": {"type": "struct"}, "payload": document}
        return json.dumps(wrapped if "schema" in form else document).encode()

    send(
        topic,
        [
            (
                written({"id": key}, MessageField.KEY),
                written(
                    None if change is None else {**change, "source": SOURCE}, MessageField.VALUE
                ),
                None,
            )
            for key, change in CHANGED
        ],
    )
    rebuild(settings, ["orders"])
    rows = db.execute("SELECT * FROM orders ORDER BY id").fetchall()
    assert rows == [(1, "paid"), (2, "new")]


# What does not fit


def test_a_value_of_another_format_is_said_with_its_place(make_project, produce, db):
    settings, topic = make_project(format="avro")
    produce(topic, [("o1", b'{"customer": "c"}')], partition=1)
    with pytest.raises(MigratorError) as caught:
        rebuild(settings, ["orders"])
    assert "begins with the byte 0x7b, as JSON text does" in caught.value.found
    assert f"topic {topic}, partition 1, offset 0, key 'o1'" in caught.value.found
    assert "format and key in [topics]" in caught.value.next_step


def test_a_schema_that_the_registry_lost_is_said_before_the_replay(make_project, produce, db):
    settings, topic = make_project(format="avro")
    produce(topic, [("o1", b"\0\0\0\0\x63abc")], partition=1)
    with pytest.raises(Refused) as caught:
        rebuild(settings, ["orders"])
    assert "schema 99 is not in the schema registry" in caught.value.found
    assert "partition 1, offset 0" in caught.value.found
    assert "--allow no-schema" in caught.value.next_step
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_a_schema_that_the_registry_lost_is_said_in_the_replay_with_its_place(
    make_project, produce, db
):
    settings, topic = make_project(format="avro")
    produce(topic, [("o1", b"\0\0\0\0\x63abc")], partition=1)
    with pytest.raises(MigratorError) as caught:
        rebuild(settings, ["orders"], Options(allow=frozenset({"no-schema"})))
    assert "schema 99 is not in the schema registry" in caught.value.found
    assert "partition 1, offset 0, key 'o1'" in caught.value.found


def test_a_field_of_another_type_is_said_with_its_path(make_project, send, stand_in, db):
    settings, topic = make_project(format="avro")
    schema = PLACED.replace('"string"', '"long"')
    value = AvroSerializer(stand_in.client, schema)(
        {"customer": 1, "cents": 1}, SerializationContext(topic, MessageField.VALUE)
    )
    send(topic, [("o1", value, None)])
    with pytest.raises(
        MigratorError, match=r"Placed: Expected `str`, got `int` - at `\$.customer`"
    ):
        rebuild(settings, ["orders"])


def test_a_registry_that_does_not_answer_is_exit_code_5(make_project, produce, stand_in, db):
    settings, topic = make_project(format="avro")
    produce(topic, [("o1", b"\0\0\0\0\x01abc")])
    stand_in.fail_with = 500
    with pytest.raises(CannotConnect, match=r"the schema registry .* does not answer"):
        rebuild(settings, ["orders"])


def test_a_key_that_does_not_decode_is_said_with_its_place(make_project, produce, db):
    settings, topic = make_project(CHANGES, envelope="debezium")
    produce(topic, [("o1", json.dumps({"op": "d", "source": SOURCE}).encode())], partition=3)
    with pytest.raises(MigratorError, match=r"the key is no JSON.*partition 3, offset 0, key 'o1'"):
        rebuild(settings, ["orders"])


def test_a_topic_of_plain_json_imports_no_client_of_the_registry():
    code = (
        "import sys, migrator.projections.replay; from migrator.kafka.decode import Opener; "
        "from migrator.settings import Topic; Opener(Topic()); "
        "sys.exit(any('schema_registry' in name or 'fastavro' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
