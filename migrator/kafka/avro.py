"""Read Avro, by fastavro: as it was written, so that what a record lacks is its class's default."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import fastavro

from migrator.kafka.envelope import Document, NoEnvelope
from migrator.kafka.registry import Registry
from migrator.kafka.schemas import Decode

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema


def reader(schema: Schema, registry: Registry) -> tuple[str | None, Decode]:
    """Compile a schema; its full name is that of a record, None of a union or a simple type.

    Logical types arrive as Python's: decimal as Decimal, timestamps as datetimes in UTC, dates, times
    and UUIDs as such. Where the whole is a union, the document has the name of the branch.
    """
    named: dict[str, Any] = {}
    _add_references(schema, registry, named, set())
    written = json.loads(schema.schema_str or "")
    if not isinstance(written, list):
        parsed = fastavro.parse_schema(written, named_schemas=named)
        name = _name(parsed)
        return name, lambda body: Document(name, _read(io.BytesIO(body), parsed))
    branches = [fastavro.parse_schema(branch, named_schemas=named) for branch in written]
    # A branch that is only named has been parsed before.
    parsed_branches = [named.get(b, b) if isinstance(b, str) else b for b in branches]

    def read(body: bytes) -> Document:
        source = io.BytesIO(body)
        index: Any = fastavro.schemaless_reader(source, "long", None)
        if not 0 <= index < len(parsed_branches):
            raise NoEnvelope(f"the value is of branch {index} of a union of {len(parsed_branches)}")
        branch = parsed_branches[index]
        return Document(_name(branch), _read(source, branch))

    return None, read


def _read(source: io.BytesIO, schema: Any) -> Any:
    document = fastavro.schemaless_reader(source, schema, None)
    left = len(source.read())
    if left:
        raise NoEnvelope(f"{left} bytes are left after the Avro value: it is of another schema")
    return document


def _name(schema: Any) -> str | None:
    return schema.get("name") if isinstance(schema, dict) else None


def _add_references(
    schema: Schema, registry: Registry, named: dict[str, Any], seen: set[tuple[str, int]]
) -> None:
    """Parse what a schema refers to, the innermost first, each once."""
    for reference in schema.references or ():
        key = (reference.subject, reference.version)
        if key not in seen:
            seen.add(key)
            found = registry.referenced(*key)
            _add_references(found, registry, named, seen)
            fastavro.parse_schema(json.loads(found.schema_str or ""), named_schemas=named)
