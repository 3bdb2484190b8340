"""Read Protobuf without generated code: messages are built from the registry's file descriptors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from migrator.kafka.envelope import Document, NoEnvelope
from migrator.kafka.framing import SchemaId
from migrator.kafka.registry import NoSchema, Registry
from migrator.kafka.schemas import Decode

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema

_WRAPPERS = {
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}


def reader(
    schema_id: SchemaId, schema: Schema, registry: Registry, indexes: tuple[int, ...]
) -> tuple[str | None, Decode]:
    """Compile the message that `indexes` lead to; its full name has the package.

    A field without a value is in the document with its zero where the message cannot tell (proto3),
    and absent where it can (`optional`, `oneof`, messages). Timestamps arrive as datetimes in UTC,
    durations as timedeltas, confluent.type.Decimal as Decimal, enums as their names.
    """
    file = _file(schema_id, schema, registry)
    pool = descriptor_pool.DescriptorPool()
    _add_dependencies(pool, file, schema, registry, set())
    pool.Add(file)
    descriptor = _message(file, pool, indexes)
    message_class = message_factory.GetMessageClass(descriptor)
    plain = _converter(descriptor)

    def read(body: bytes) -> Document:
        try:
            message = message_class.FromString(body)
        except DecodeError as exc:
            raise NoEnvelope(f"the value is no {descriptor.full_name}: {exc}") from exc
        return Document(descriptor.full_name, plain(message))

    return descriptor.full_name, read


def _file(
    schema_id: SchemaId, schema: Schema, registry: Registry
) -> descriptor_pb2.FileDescriptorProto:
    """The file of a schema; some registries keep it serialised, others as text and convert it."""
    found = _parsed(schema.schema_str) or _parsed(registry.protobuf_file(schema_id).schema_str)
    if found is None:
        raise NoSchema(
            f"the registry ({registry.where}) gives the Protobuf schema {schema_id} as text, and "
            "not as a serialised file descriptor (format=serialized)",
            next_step="use a registry that does, or register the schema serialised",
        )
    return found


def _parsed(text: str | None) -> descriptor_pb2.FileDescriptorProto | None:
    """Parse a serialised file descriptor, in base64 or (Apicurio) bytes that are text by chance."""
    try:
        raw = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        raw = (text or "").encode()
    if not raw or "\N{REPLACEMENT CHARACTER}" in (text or ""):
        return None
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(raw)
    except DecodeError:
        return None


def _add_dependencies(
    pool: descriptor_pool.DescriptorPool,
    file: descriptor_pb2.FileDescriptorProto,
    schema: Schema,
    registry: Registry,
    added: set[str],
) -> None:
    """Add what a file imports, the innermost first, under the names it is imported by."""
    references = {each.name: each for each in schema.references or ()}
    for name in file.dependency:
        if name in added:
            continue
        added.add(name)
        reference = references.get(name)
        if reference is None:
            pool.AddSerializedFile(_well_known(name))
            continue
        found = registry.referenced(reference.subject, reference.version, fmt="serialized")
        imported = _parsed(found.schema_str)
        if imported is None:
            raise NoSchema(f"{name}, which a Protobuf schema imports, is no serialised file")
        imported.name = name
        _add_dependencies(pool, imported, found, registry, added)
        pool.Add(imported)


def _well_known(name: str) -> bytes:
    """Google's and Confluent's own files, which need not be registered."""
    from confluent_kafka.schema_registry import protobuf  # noqa: F401 - it loads Google's and its own

    try:
        found = descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        raise NoSchema(f"{name}, which a Protobuf schema imports, is nowhere") from None
    serialized: bytes = found.serialized_pb
    return serialized


def _message(
    file: descriptor_pb2.FileDescriptorProto,
    pool: descriptor_pool.DescriptorPool,
    indexes: tuple[int, ...],
) -> Any:
    names, messages = [file.package] if file.package else [], file.message_type
    for index in indexes:
        if not 0 <= index < len(messages):
            path = ".".join(names) or file.name
            raise NoEnvelope(
                f"the value is of message {index} of {path}, which has {len(messages)}"
            )
        names.append(messages[index].name)
        messages = messages[index].nested_type
    return pool.FindMessageTypeByName(".".join(names))


Convert = Callable[[Any], Any]


def _converter(descriptor: Any) -> Convert:
    """Make the function that turns messages of a type into plain Python data."""
    return _special(descriptor.full_name) or _Record(descriptor).plain


def _special(full_name: str) -> Convert | None:
    if full_name == "google.protobuf.Timestamp":
        return lambda message: message.ToDatetime(tzinfo=UTC)
    if full_name == "google.protobuf.Duration":
        return lambda message: message.ToTimedelta()
    if full_name in _WRAPPERS:
        return lambda message: message.value
    if full_name == "confluent.type.Decimal":
        from confluent_kafka.schema_registry.confluent.type.decimal_utils import from_proto_decimal

        decimal: Convert = from_proto_decimal
        return decimal
    if full_name in (
        "google.protobuf.Struct",
        "google.protobuf.Value",
        "google.protobuf.ListValue",
    ):
        from google.protobuf.json_format import MessageToDict

        as_json: Convert = MessageToDict
        return as_json
    return None


class _Record:
    """Converts messages of one type; those of its fields are made when they are first met."""

    def __init__(self, descriptor: Any) -> None:
        self._fields = list(descriptor.fields)
        self._converters: Mapping[str, Convert] = {}

    def plain(self, message: Any) -> dict[str, Any]:
        if not self._converters:
            self._converters = {field.name: _field(field) for field in self._fields}
        return {
            field.name: self._converters[field.name](getattr(message, field.name))
            for field in self._fields
            if not field.has_presence or message.HasField(field.name)
        }


def _field(field: Any) -> Convert:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _single(field.message_type.fields_by_name["value"])
        # Reading a key of a map of messages would add it: items are listed instead.
        return lambda entries: {key: value(each) for key, each in entries.items()}
    single = _single(field)
    if field.is_repeated:
        return lambda values: [single(each) for each in values]
    return single


def _single(field: Any) -> Convert:
    if field.message_type is not None:
        return _converter(field.message_type)
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        # A number that the schema does not name stays one.
        return lambda number: names.get(number, number)
    return lambda value: value
