"""Read values and keys that are written in a schema of the registry, in any of its three formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from migrator.kafka.envelope import Document, Headers, NoEnvelope
from migrator.kafka.framing import Part, SchemaId, unframe
from migrator.kafka.registry import NoSchema, Registry

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema

TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF", "jsonschema": "JSON"}


Decode = Callable[[bytes], Document]


class SchemaReader:
    """Reads one part of a topic's records; each schema is fetched and compiled once."""

    def __init__(self, fmt: str, registry: Registry, part: Part) -> None:
        self._format = fmt
        self._registry = registry
        self._part: Part = part
        self._reads: dict[tuple[SchemaId, tuple[int, ...]], Decode] = {}
        self._names: dict[tuple[SchemaId, tuple[int, ...]], str | None] = {}

    def read(self, data: bytes, headers: Headers) -> Document:
        """Decode a value or key.

        Raises:
            NoEnvelope: it names no schema, or does not fit the one it names.
            NoSchema: the registry does not have the schema, or it cannot be used.
            CannotConnect: the registry does not answer.
        """
        framed = unframe(data, headers, self._part, has_indexes=self._format == "protobuf")
        read = self._reads.get((framed.schema, framed.indexes))
        if read is None:
            read = self._compiled(framed.schema, framed.indexes)
        try:
            return read(framed.body)
        except NoEnvelope:
            raise
        except Exception as exc:
            said = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            raise NoEnvelope(
                f"the {self._part} does not fit its schema {framed.schema}: {said}"
            ) from exc

    def name_of(self, schema: SchemaId, indexes: tuple[int, ...]) -> str | None:
        """Fetch and compile a schema; its full name, or None for one without."""
        self._compiled(schema, indexes)
        return self._names[schema, indexes]

    def _compiled(self, schema: SchemaId, indexes: tuple[int, ...]) -> Decode:
        found = self._registry.schema(schema)
        if found.schema_type != TYPES[self._format]:
            raise NoSchema(
                f"schema {schema} is {found.schema_type}, expected {TYPES[self._format]}",
                next_step="correct format (or key) of the topic in [topics] of migrator.toml",
            )
        try:
            name, read = self._reader(schema, found, indexes)
        except NoEnvelope:
            raise
        except Exception as exc:
            raise NoSchema(f"schema {schema} cannot be used: {type(exc).__name__}: {exc}") from exc
        self._names[schema, indexes] = name
        self._reads[schema, indexes] = read
        return read

    def _reader(
        self, schema: SchemaId, found: Schema, indexes: tuple[int, ...]
    ) -> tuple[str | None, Decode]:
        if self._format == "avro":
            from migrator.kafka import avro

            return avro.reader(found, self._registry)
        if self._format == "protobuf":
            from migrator.kafka import protobuf

            return protobuf.reader(schema, found, self._registry, indexes)
        return _json_reader(found)


def _json_reader(found: Schema) -> tuple[str | None, Decode]:
    """JSON text that its producer has checked; the event class is what it is checked against here."""
    name = json.loads(found.schema_str or "").get("title")
    return name, lambda body: Document(name, body)
