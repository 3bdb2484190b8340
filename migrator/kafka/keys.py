"""Read the keys of records that are more than text: JSON, or written in a schema of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from migrator.kafka.envelope import Headers, NoEnvelope
from migrator.kafka.registry import registry_of
from migrator.kafka.schemas import SchemaReader
from migrator.settings import Topic

ReadKey = Callable[[Any, Headers], str | None]


def key_reader(topic: Topic) -> ReadKey | None:
    """Make the function that gives a record's key as text; None where the key is text as it is.

    The bytes of one key may differ, by the schema's id above all; its text does not. A key with
    fields is the one that `key_field` names, or its only one. The function raises NoEnvelope.
    """
    if topic.key == "text":
        return None
    if topic.key == "json":
        read: Callable[[bytes, Headers], Any] = _json
    else:
        schemas = SchemaReader(topic.key, registry_of(topic.schema_registry), "key")

        def read(data: bytes, headers: Headers) -> Any:
            content = schemas.read(data, headers).content
            return _json(content, headers) if topic.key == "jsonschema" else content

    def key(data: Any, headers: Headers) -> str | None:
        if data is None:
            return None
        return _text(topic, read(data.encode() if isinstance(data, str) else data, headers))

    return key


def _json(data: bytes, _headers: Headers) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as exc:
        raise NoEnvelope(f"the key is no JSON: {exc}") from None


def _text(topic: Topic, found: Any) -> str | None:
    if isinstance(found, dict):
        if topic.envelope == "debezium" and {"schema", "payload"} == set(found):
            found = found["payload"]
        found = _field(topic.key_field, found) if isinstance(found, dict) else found
    if isinstance(found, dict | list | float | bytes | bool):
        raise NoEnvelope(f"the key is no text or whole number: {found!r:.80}")
    return None if found is None else str(found)


def _field(named: str | None, found: dict[str, Any]) -> Any:
    if named is not None and named in found:
        return found[named]
    if named is None and len(found) == 1:
        return next(iter(found.values()))
    raise NoEnvelope(
        f"the key has the fields {', '.join(found) or 'none'}, expected {named or 'one'}",
        next_step="say which one: key_field of the topic in [topics] of migrator.toml",
    )
