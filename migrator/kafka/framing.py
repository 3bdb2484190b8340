"""Find out which schema of the registry a record's value or key is written in.

Two framings: the bytes begin with 0x00 and the schema's id, four bytes; or a header, `__value_schema_id`
or `__key_schema_id`, holds 0x01 and the schema's GUID, 16 bytes. Protobuf adds which message of the
schema's file it is, as a path of indexes.
"""

from __future__ import annotations

import uuid
from typing import Literal, NamedTuple

from migrator.kafka.envelope import Headers, NoEnvelope, raw_header

Part = Literal["value", "key"]
SchemaId = int | str  # a number, or a GUID's text

HEADERS: dict[Part, str] = {"value": "__value_schema_id", "key": "__key_schema_id"}
_BY_ID, _BY_GUID = 0, 1
_ID_ENDS, _GUID_ENDS = 5, 17


class Framed(NamedTuple):
    """`indexes` is empty but for Protobuf."""

    schema: SchemaId
    indexes: tuple[int, ...]
    body: bytes


def unframe(
    data: bytes, headers: Headers, part: Part = "value", *, has_indexes: bool = False
) -> Framed:
    """Take the schema's id off the bytes of a value or key, or out of the headers.

    Raises:
        NoEnvelope: there is none; the message says what was found in its place.
    """
    in_header = raw_header(headers, HEADERS[part])
    if in_header is not None:
        schema, rest = _of_header(in_header, part)
        return Framed(schema, _indexes(rest)[0] if has_indexes else (), data)
    if len(data) < _ID_ENDS or data[0] != _BY_ID:
        raise _unframed(data, f"the {part}", f"the header {HEADERS[part]}")
    schema, rest = int.from_bytes(data[1:_ID_ENDS], "big"), data[_ID_ENDS:]
    return Framed(schema, *_indexes(rest)) if has_indexes else Framed(schema, (), rest)


def _of_header(data: bytes, part: Part) -> tuple[SchemaId, bytes]:
    """A header may hold an id as well as a GUID."""
    if len(data) >= _ID_ENDS and data[0] == _BY_ID:
        return int.from_bytes(data[1:_ID_ENDS], "big"), data[_ID_ENDS:]
    if len(data) >= _GUID_ENDS and data[0] == _BY_GUID:
        return str(uuid.UUID(bytes=data[1:_GUID_ENDS])), data[_GUID_ENDS:]
    raise _unframed(data, f"the header {HEADERS[part]}", "0x01 and a GUID of 16 bytes")


def _unframed(data: bytes, where: str, otherwise: str) -> NoEnvelope:
    if not data:
        found = "is empty"
    elif data[0] == _BY_ID or (data[0] == _BY_GUID and "header" in where):
        found = f"ends within its schema id ({len(data)} bytes)"
    else:
        hint = ", as JSON text does" if chr(data[0]) in '{["' else ""
        found = f"begins with the byte 0x{data[0]:02x}{hint}"
    return NoEnvelope(
        f"{where} {found}, expected 0x00 and a schema id of 4 bytes, or {otherwise}",
        next_step="say how the topic is written: format and key in [topics] of migrator.toml",
    )


def _indexes(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The path to a Protobuf message: their number and the indexes, each a zigzag varint."""
    count, at = _varint(data, 0)
    if count == 0:
        return (0,), data[at:]
    found = []
    if count < 0 or count > len(data):
        raise NoEnvelope(f"the path of the Protobuf message has {count} parts")
    for _ in range(count):
        index, at = _varint(data, at)
        found.append(index)
    return tuple(found), data[at:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(at, min(len(data), at + 10)):
        number |= (data[position] & 0x7F) << shift
        shift += 7
        if not data[position] & 0x80:
            return (number >> 1) ^ -(number & 1), position + 1
    raise NoEnvelope("the value ends within the path of its Protobuf message")
