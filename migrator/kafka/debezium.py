"""Debezium's change events: the type is `table.op`, the payload the change with its before and after.

JSON comes with or without the schema around it; Avro, Protobuf and JSON Schema through the registry.
The null that follows a delete is a tombstone, as everywhere.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from migrator.kafka.envelope import HEADER, Headers, NoEnvelope, Open, Parts, Read, header
from migrator.settings import Topic

OPERATIONS = {
    "c": "create",
    "r": "read",
    "u": "update",
    "d": "delete",
    "t": "truncate",
}


class _Source(msgspec.Struct, gc=False):
    table: str | None = None
    collection: str | None = None  # MongoDB's word
    ts_ms: int | None = None


class _Change(msgspec.Struct, gc=False):
    op: str | None = None
    source: _Source | None = None
    ts_ms: int | None = None
    payload: msgspec.Raw = msgspec.Raw()  # the schema is around it


def opener(topic: Topic, read: Read) -> Open:
    """Make the function that opens change events; `read(value, headers)` decodes the value."""
    decode = msgspec.json.Decoder(_Change).decode

    def open_(value: bytes, headers: Headers) -> Parts:
        content = read(value, headers).content
        try:
            if isinstance(content, bytes):
                change = decode(content)
                if change.payload and change.op is None:
                    content = change.payload
                    change = decode(content)
            else:
                change = msgspec.convert(content, _Change)
        except (msgspec.ValidationError, msgspec.DecodeError) as exc:
            raise NoEnvelope(f"no change event of Debezium: {exc}") from None
        version = topic.version
        said = header(headers, version.removeprefix(HEADER)) if version.startswith(HEADER) else None
        return Parts(_type(change), None, _time(change), said, content)

    return open_


def _type(change: _Change) -> str:
    if change.op is None or change.source is None:
        lacks = "op" if change.op is None else "source"
        raise NoEnvelope(
            f"no change event of Debezium: it has no {lacks}",
            next_step="where the connector flattens its events (ExtractNewRecordState), "
            'say envelope = "plain"',
        )
    if change.op not in OPERATIONS:
        raise NoEnvelope(f"op is {change.op!r}, expected one of {', '.join(OPERATIONS)}")
    table = change.source.table or change.source.collection
    if not table:
        raise NoEnvelope("no change event of a table: source has no table")
    return f"{table}.{change.op}"


def _time(change: _Change) -> datetime | None:
    """When the source committed the change, to the millisecond."""
    assert change.source is not None
    ts_ms = change.source.ts_ms or change.ts_ms
    return None if ts_ms is None else datetime.fromtimestamp(ts_ms / 1000, UTC)
