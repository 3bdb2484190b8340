"""The registry's client: its settings, its absence, and the schemas that a sample of records names."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from migrator.errors import CannotConnect, Refused, SettingsError
from migrator.kafka import registry as registry_module
from migrator.kafka.envelope import NoEnvelope
from migrator.kafka.registry import SeenSchema, registry_of, resolve
from migrator.settings import Topic, load
from tests import protos
from tests.schema_registry import StandIn, register

PLACED = json.dumps({"type": "record", "name": "shop.Placed", "fields": []})
QUICK = {"max.retries": "0"}


@pytest.fixture
def stand_in():
    # The port of another test may come again, and a process keeps its registries.
    registry_module._registry.cache_clear()
    with StandIn().running() as running:
        yield running


class Record:
    """As much of a message as is looked at."""

    def __init__(
        self, value: bytes | None, key: bytes | None = b"k", headers=None, offset=0
    ) -> None:
        self._parts = {"value": value, "key": key, "headers": headers, "offset": offset}

    def __getattr__(self, name: str) -> Any:
        return lambda: self._parts.get(name, 0)


def framed(number: int, body: bytes = b"") -> bytes:
    return b"\0" + number.to_bytes(4, "big") + body


def topic(stand_in: StandIn, **places: Any) -> Topic:
    return Topic(schema_registry={"url": stand_in.url, **QUICK}, **places)


# Settings


def test_the_registrys_properties_come_from_file_and_environment(tmp_path, monkeypatch):
    (tmp_path / "migrator.toml").write_text(
        '[schema_registry]\nurl = "http://r"\n"max.retries" = "1"\n[topics.t]\nformat = "avro"\n'
        '[topics.own]\nformat = "avro"\nschema_registry = { url = "http://own" }\n'
    )
    (tmp_path / "secret").write_text("user:secret\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIGRATOR_SCHEMA_REGISTRY_URL", "http://other")
    monkeypatch.setenv("MIGRATOR_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO_FILE", str(Path("secret")))
    settings = load()
    assert settings.topic("t").schema_registry == {
        "url": "http://other",
        "max.retries": "1",
        "basic.auth.user.info": "user:secret",
    }
    assert settings.topic("own").schema_registry == {"url": "http://own"}
    assert "secret" not in repr(settings) + repr(settings.topic("t"))


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({}, "no schema registry is named"),
        ({"url": ""}, "no schema registry is named"),
        ({"url": "ftp://r"}, "Invalid url ftp://r"),
        ({"url": "http://r", "odd": "1"}, "Unrecognized properties: odd"),
        ({"url": "http://r", "max.retries": "many"}, "could not convert string to float: 'many'"),
        ({"url": "http://r", "ssl.ca.location": "/nowhere"}, "[schema_registry] is wrong"),
    ],
)
def test_wrong_settings_of_the_registry_are_said(properties, said):
    with pytest.raises(SettingsError) as caught:
        registry_of(properties)
    assert said in caught.value.found


def test_one_client_serves_all_topics_of_a_process():
    assert registry_of({"url": "http://r"}) is registry_of({"url": "http://r"})
    assert registry_of({"url": "http://r"}) is not registry_of({"url": "http://q"})


def test_a_schema_is_asked_for_once_a_process_whatever_the_client_keeps(stand_in):
    number, _ = register(stand_in.client, protos.text(), "PROTOBUF")
    registry = registry_of({"url": stand_in.url})
    for _ in range(2):
        registry.schema(number)
        registry.protobuf_file(number)
    assert stand_in.asked == [f"/schemas/ids/{number}"] * 2


# Absence


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_registry_that_is_down_is_said_without_its_password():
    url = f"http://me:secret@127.0.0.1:{closed_port()}"
    with pytest.raises(CannotConnect, match="does not answer") as caught:
        registry_of({"url": url, **QUICK}).schema(1)
    assert "secret" not in str(caught.value)
    assert url.rpartition("@")[2] in caught.value.found
    assert "MIGRATOR_SCHEMA_REGISTRY_URL" in caught.value.next_step


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "does not let us in: HTTP 401"), (403, "HTTP 403"), (500, "does not answer: no (HTTP")],
)
def test_a_registry_that_refuses_is_said(stand_in, status, said):
    stand_in.fail_with = status
    with pytest.raises(CannotConnect) as caught:
        registry_of({"url": stand_in.url, **QUICK}).schema(1)
    assert said in caught.value.found


def test_an_unknown_path_of_a_wrong_url_is_an_unknown_schema(stand_in):
    with pytest.raises(NoEnvelope, match="is not in the schema registry") as caught:
        registry_of({"url": f"{stand_in.url}/elsewhere", **QUICK}).schema(1)
    assert "see whether [schema_registry] names the registry" in caught.value.next_step


def test_credentials_are_sent(stand_in):
    number, _ = register(stand_in.client, PLACED)
    properties = {"url": stand_in.url, "basic.auth.user.info": "me:secret"}
    registry_of(properties).schema(number)
    assert stand_in.authorization == "Basic bWU6c2VjcmV0"


# What a sample of records names


def test_the_schemas_of_a_sample_are_resolved_each_once(stand_in):
    number, guid = register(stand_in.client, PLACED)
    other, _ = register(stand_in.client, json.dumps("string"), subject="k")
    in_header = [("__value_schema_id", b"\1" + guid.bytes)]
    records = [
        Record(framed(number), framed(other)),
        Record(framed(number), framed(other)),
        Record(b"", framed(other), in_header),
        Record(None, None),
    ]
    assert resolve(topic(stand_in, format="avro", key="avro"), records) == [
        SeenSchema("key", other, 3, None),
        SeenSchema("value", number, 2, "shop.Placed"),
        SeenSchema("value", str(guid), 1, "shop.Placed"),
    ]
    assert len(stand_in.asked) == 3


def test_messages_of_protobuf_are_resolved_by_their_path(stand_in):
    number, _ = register(stand_in.client, protos.text(), "PROTOBUF")
    records = [Record(framed(number, b"\0")), Record(framed(number, b"\x04\x02\x00"))]
    found = resolve(topic(stand_in, format="protobuf"), records)
    assert sorted(str(seen.name) for seen in found) == ["shop.Outer.Inner", "shop.Placed"]


def test_every_missing_schema_is_in_the_one_refusal(stand_in):
    number, _ = register(stand_in.client, PLACED)
    records = [Record(framed(n), offset=n) for n in (number, 98, 99, 98)]
    with pytest.raises(Refused) as caught:
        resolve(topic(stand_in, format="avro"), records)
    first, second = caught.value.found.splitlines()
    assert first.startswith("schema 98 is not in the schema registry")
    assert first.endswith("the value of 2 records, first partition 0, offset 98")
    assert "schema 99" in second
    assert caught.value.next_step


def test_a_schema_that_does_not_compile_is_refused_before_the_run(stand_in):
    number, _ = register(stand_in.client, '{"type": "nothing"}')
    with pytest.raises(Refused, match="cannot be used: UnknownType"):
        resolve(topic(stand_in, format="avro"), [Record(framed(number))])


def test_a_value_without_a_schema_is_refused_with_its_place(stand_in):
    with pytest.raises(Refused, match=r"0x7b, as JSON text does.*partition 0, offset 5") as caught:
        resolve(topic(stand_in, format="avro"), [Record(b"{}", offset=5)])
    assert caught.value.expected == "a value in avro"


def test_a_topic_without_schemas_asks_no_registry():
    assert resolve(Topic(), [Record(b"{}")]) == []


def test_a_structured_cloud_event_names_no_schema(stand_in):
    records = [Record(b"{}", headers=[("content-type", b"application/cloudevents+json")])]
    assert resolve(topic(stand_in, format="avro", envelope="cloudevents"), records) == []


def test_a_batch_of_cloud_events_is_refused_before_the_run(stand_in):
    records = [Record(b"[]", headers=[("content-type", b"application/cloudevents-batch+json")])]
    with pytest.raises(Refused, match="a batch of CloudEvents"):
        resolve(topic(stand_in, format="avro", envelope="cloudevents"), records)


def test_a_registry_that_is_down_stops_the_look():
    properties = {"url": f"http://127.0.0.1:{closed_port()}", **QUICK}
    with pytest.raises(CannotConnect):
        resolve(Topic(format="avro", schema_registry=properties), [Record(framed(1))])
