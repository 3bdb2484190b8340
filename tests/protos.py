"""Protobuf messages for tests, built without generated code."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from confluent_kafka.schema_registry.confluent.type import decimal_pb2
from confluent_kafka.schema_registry.confluent.type.decimal_utils import to_proto_decimal
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

STRING, INT64, BYTES, MESSAGE, ENUM = (
    Field.TYPE_STRING,
    Field.TYPE_INT64,
    Field.TYPE_BYTES,
    Field.TYPE_MESSAGE,
    Field.TYPE_ENUM,
)
OWN = (timestamp_pb2, duration_pb2, wrappers_pb2, decimal_pb2)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in OWN)
    _order(file.message_type.add(name="Placed"))
    _order(file.message_type.add(name="Outer").nested_type.add(name="Inner"))
    colour = file.enum_type.add(name="Colour")
    for number, name in enumerate(("RED", "BLUE")):
        colour.value.add(name=name, number=number)
    message = file.message_type.add(name="Everything")
    fields: list[tuple[str, Any, str, bool]] = [
        ("at", MESSAGE, ".google.protobuf.Timestamp", False),
        ("wait", MESSAGE, ".google.protobuf.Duration", False),
        ("money", MESSAGE, ".confluent.type.Decimal", False),
        ("wrapped", MESSAGE, ".google.protobuf.Int64Value", False),
        ("colour", ENUM, ".shop.Colour", False),
        ("raw", BYTES, "", False),
        ("items", MESSAGE, ".shop.Placed", True),
        ("names", STRING, "", True),
        ("counts", MESSAGE, ".shop.Everything.CountsEntry", True),
        ("lines", MESSAGE, ".shop.Everything.LinesEntry", True),
        ("chosen", INT64, "", False),
        ("other", STRING, "", False),
        ("zero", INT64, "", False),
    ]
    for number, (name, kind, of, repeated) in enumerate(fields, 1):
        field = message.field.add(name=name, number=number, type=kind, type_name=of or None)
        field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
        if name in ("chosen", "other"):
            field.oneof_index = 0
    message.oneof_decl.add(name="either")
    for entry, kind, of in (("CountsEntry", INT64, ""), ("LinesEntry", MESSAGE, ".shop.Placed")):
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, type=STRING, label=Field.LABEL_OPTIONAL)
        nested.field.add(name="value", number=2, type=kind, type_name=of or None, label=1)
    return file


def _order(message: descriptor_pb2.DescriptorProto) -> None:
    message.field.add(name="customer", number=1, type=STRING, label=Field.LABEL_OPTIONAL)
    message.field.add(name="cents", number=2, type=INT64, label=Field.LABEL_OPTIONAL)


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in OWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(_file())
    return pool


POOL = _pool()


def message(name: str) -> Any:
    """The class of a message of shop.proto."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"shop.{name}"))


def importing() -> Any:
    """The class of a message in another file, which imports shop.proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="sale.proto", package="sale", syntax="proto3", dependency=["shop.proto"]
    )
    sale = file.message_type.add(name="Sale")
    sale.field.add(name="placed", number=1, type=MESSAGE, type_name=".shop.Placed", label=1)
    pool = _pool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sale.Sale"))


def text() -> str:
    """shop.proto as the registry keeps it."""
    return base64.b64encode(_file().SerializeToString()).decode()


def decimal(value: Decimal) -> bytes:
    """A confluent.type.Decimal, serialised."""
    return bytes(to_proto_decimal(value).SerializeToString())
