"""A real Schema Registry, Apicurio: what workers read through it. `make registry` runs this."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from jgo.maven import MavenContext

from migrator.errors import CannotConnect, MigratorError, Refused
from migrator.kafka.registry import registry_of, resolve
from migrator.projections.rebuild import rebuild
from migrator.sandbox import cache
from migrator.sandbox.java import find_java
from migrator.sandbox.server import free_ports
from migrator.settings import Topic
from tests import projects, protos
from tests.integration.test_formats import CHANGE_AVRO, CHANGED, CHANGES, EVENTS, PAYLOADS, PLACED

pytestmark = pytest.mark.registry

VERSION = "3.3.3"
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
START_DEADLINE_S = 90


def _install(folder: Path) -> None:
    maven = MavenContext(repo_cache=folder / "download")
    component = maven.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
    archive = component.artifact("all", "tar.gz").resolve()
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "app", filter="data")
    archive.unlink()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Where Apicurio answers as a Confluent registry does; it keeps nothing on disk."""
    folder = cache.fill(f"apicurio-{VERSION}", _install, lambda _: None)
    port, management_port = free_ports(2)
    log = tmp_path_factory.mktemp("apicurio") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(find_java(lambda _: None).program, "-Xmx384m", "-XX:TieredStopAtLevel=1"),
                *("-XX:+UseSerialGC", f"-Dquarkus.http.port={port}"),
                *("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.management.port={management_port}"),
                *("-Dquarkus.management.host=127.0.0.1", "-jar", "quarkus-run.jar"),
            ],
            cwd=folder / "app",
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        where = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        _await(where, process, log)
        yield where
    finally:
        process.terminate()
        process.wait(30)


def _await(where: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx2.get(f"{where}/subjects").raise_for_status()
        except httpx2.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Apicurio did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def client(url):
    with SchemaRegistryClient.new_client({"url": url}) as made:
        yield made


@pytest.fixture
def make_project(tmp_path, make_settings, topic, url):
    def made(source: str = EVENTS, **places: str):
        name = topic("orders")
        projects.write(tmp_path, source.format(topic=name))
        return make_settings(tmp_path, topics={name: places}, schema_registry={"url": url}), name

    return made


@pytest.fixture
def send(brokers):
    def sent(name: str, records: list[tuple[Any, Any]]) -> None:
        producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
        for key, value in records:
            producer.produce(name, value, key)
        assert producer.flush(60) == 0

    return sent


@pytest.mark.parametrize("fmt", ["avro", "protobuf", "jsonschema"])
def test_a_topic_of_every_format_is_folded(make_project, send, client, db, fmt):
    settings, topic = make_project(format=fmt)
    if fmt == "avro":
        serialize: Any = AvroSerializer(client, PLACED)
    elif fmt == "jsonschema":
        # Apicurio finds out from `$schema` that it is one.
        draft = "http://json-schema.org/draft-07/schema#"
        schema = {"$schema": draft, "title": "Placed", "type": "object"}
        serialize = JSONSerializer(json.dumps(schema), client)
    else:
        made = protos.message("Placed")
        proto = ProtobufSerializer(made, client)

        def serialize(payload: Any, context: Any) -> Any:
            return proto(made(**payload), context)

    context = SerializationContext(topic, MessageField.VALUE)
    send(topic, [(f"o{n}", serialize(payload, context)) for n, payload in enumerate(PAYLOADS)])
    rebuild(settings, ["orders"])
    rows = db.execute("SELECT order_id, customer, cents FROM orders ORDER BY cents").fetchall()
    assert rows == [(f"o{n}", p["customer"], p["cents"]) for n, p in enumerate(PAYLOADS)]


def test_the_changes_of_a_table_in_avro_give_the_table(make_project, send, client, db):
    settings, topic = make_project(CHANGES, envelope="debezium", format="avro")
    fields = [{"name": "id", "type": "int"}]
    key = AvroSerializer(client, json.dumps({"type": "record", "name": "Key", "fields": fields}))
    value = AvroSerializer(client, json.dumps(CHANGE_AVRO))
    in_key = SerializationContext(topic, MessageField.KEY)
    in_value = SerializationContext(topic, MessageField.VALUE)
    source = {"table": "orders", "ts_ms": 1}
    records = [
        (key({"id": n}, in_key), change and value({**change, "source": source}, in_value))
        for n, change in CHANGED
    ]
    send(topic, records)
    rebuild(settings, ["orders"])
    assert db.execute("SELECT * FROM orders ORDER BY id").fetchall() == [(1, "paid"), (2, "new")]


def test_a_schema_that_refers_to_another_is_read(make_project, send, client, db):
    settings, topic = make_project(format="avro")
    client.register_schema("money", Schema('{"type":"enum","name":"M","symbols":["EUR"]}', "AVRO"))
    schema = json.loads(PLACED)
    schema["fields"].append({"name": "currency", "type": "M"})
    refers = Schema(json.dumps(schema), "AVRO", [SchemaReference("M", "money", 1)])
    value = AvroSerializer(client, refers)(
        {"customer": "c", "cents": 1, "currency": "EUR"},
        SerializationContext(topic, MessageField.VALUE),
    )
    send(topic, [("o1", value)])
    rebuild(settings, ["orders"])
    assert db.execute("SELECT customer FROM orders").fetchall() == [("c",)]


class Record:
    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def __getattr__(self, _name: str) -> Any:
        return lambda: None


def framed(number: int, body: bytes = b"\0") -> bytes:
    return b"\0" + number.to_bytes(4, "big") + body


def test_a_protobuf_schema_that_is_kept_as_text_is_read(client, url):
    text = 'syntax = "proto3";\npackage shop;\nmessage Sold { string id = 1; }\n'
    number = client.register_schema("sold", Schema(text, "PROTOBUF"))
    topic = Topic(format="protobuf", schema_registry={"url": url})
    (seen,) = resolve(topic, [Record(framed(number))])
    assert seen.name == "shop.Sold"


def test_a_sample_of_records_is_resolved_or_refused(client, url):
    number = client.register_schema("placed", Schema(PLACED, "AVRO"))
    topic = Topic(format="avro", schema_registry={"url": url})
    (seen,) = resolve(topic, [Record(framed(number))] * 3)
    assert (seen.id, seen.records, seen.name) == (number, 3, "Placed")
    with pytest.raises(Refused, match="schema 999999 is not in the schema registry"):
        resolve(topic, [Record(framed(number)), Record(framed(999999))])


def test_a_deleted_schema_stops_the_rebuild_with_its_place(make_project, produce, db):
    settings, topic = make_project(format="avro")
    produce(topic, [("o1", framed(999999))], partition=1)
    with pytest.raises(
        MigratorError, match="schema 999999 is not in the schema registry"
    ) as caught:
        rebuild(settings, ["orders"])
    assert "partition 1, offset 0, key 'o1'" in caught.value.found


def test_another_port_is_no_registry(url):
    (port,) = free_ports(1)
    with pytest.raises(CannotConnect, match="does not answer"):
        registry_of({"url": f"http://127.0.0.1:{port}", "max.retries": "0"}).schema(1)
