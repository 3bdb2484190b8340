"""Decode a batch of records into typed events.

A decoded event is a struct with the event as its `payload`, its `type` and, where a handler takes a
Meta, its `id` and `time`. Each event type has a class of such structs (its kind), so that what is
to be done with an event is looked up by its class.

Where all of a record lies in one JSON envelope, msgspec picks the kind by the type's field and
decodes envelope and payload in one pass. Anything else, and a batch that this pass does not take,
goes record by record, which also tells what is wrong, and where.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from confluent_kafka import Message

from migrator.kafka.decode import Opener
from migrator.projections.events import TOMBSTONE
from migrator.projections.fold import RawKey
from migrator.projections.payload import payload_decoder
from migrator.settings import Topic

Kind = type[Any]


class UnknownType(Exception):
    """An event type that no projection of the pass names."""


class Undecodable(Exception):
    """A record that does not decode; its cause says why. `type` is None where not even that is known."""

    def __init__(self, record: Message, event_type: str | None) -> None:
        super().__init__()
        self.record = record
        self.type = event_type


class BatchDecoder:
    """Decodes the records of one topic.

    `events` maps each known event type to the class of its payload, or to None where it is ignored
    and its payload need not be decoded.
    """

    def __init__(self, topic: Topic, events: Mapping[str, type | None], *, with_meta: bool) -> None:
        self.kinds = {
            event_type: _kind(topic, event_type, event, with_meta=with_meta)
            for event_type, event in {TOMBSTONE: None, **events}.items()
        }
        classes = {event_type: event for event_type, event in events.items() if event is not None}
        self._opener = Opener(topic, classes.values())
        is_plain = self._opener.plain is not None
        self._payloads = {
            event_type: payload_decoder(event, is_plain=is_plain)
            for event_type, event in classes.items()
        }
        self._at_once = self._union(events) if self._opener.plain else None

    def _union(self, events: Mapping[str, type | None]) -> Callable[[Any], Any] | None:
        kinds = [self.kinds[event_type] for event_type in events]
        return msgspec.json.Decoder(functools.reduce(operator.or_, kinds)).decode if kinds else None

    def decode(self, records: Sequence[Message]) -> list[Any]:
        """Decode the records, one event a record, in their order.

        Raises:
            Undecodable: a record lacks its envelope, its payload does not fit, or its type is unknown.
        """
        if self._at_once:
            try:
                return list(map(self._at_once, [record.value() for record in records]))
            except (msgspec.MsgspecError, TypeError):
                pass  # a tombstone, an unknown type, or a payload that does not fit
        return [self._one(record) for record in records]

    def keys(self, records: Sequence[Message]) -> list[RawKey]:
        """The records' keys, decoded where they are more than text.

        Raises:
            Undecodable: a key does not decode.
        """
        read = self._opener.key
        if read is None:
            return [record.key() for record in records]
        keys: list[RawKey] = []
        for record in records:
            try:
                keys.append(read(record.key(), record.headers))
            except Exception as exc:
                raise Undecodable(record, None) from exc
        return keys

    def _one(self, record: Message) -> Any:
        value, event_type = record.value(), None
        if value is None:
            return self.kinds[TOMBSTONE]()
        try:
            opener = self._opener
            envelope = opener.plain(value) if opener.plain else opener.open(value, record.headers)
            event_type = envelope.type
            kind = self.kinds.get(event_type)
            if kind is None:
                raise UnknownType(event_type)  # noqa: TRY301 - it is named like the others
            parts = {name: getattr(envelope, name) for name in kind.__struct_fields__}
            if "payload" in parts:
                parts["payload"] = self._payloads[event_type](envelope.payload)
        except Exception as exc:
            raise Undecodable(record, event_type) from exc
        return kind(**parts)


def _kind(topic: Topic, event_type: str, event: type | None, *, with_meta: bool) -> Kind:
    absent: dict[str, Any] = {"type": event_type, "id": None, "time": None}
    fields: list[tuple[str, Any, Any]] = []
    if event is None:
        absent["payload"] = None
    else:
        fields.append(("payload", event, msgspec.field(name=topic.payload)))
    if with_meta:
        del absent["id"]
        fields.append(("id", str | int | None, msgspec.field(name=topic.id, default=None)))
        if topic.time is not None:
            del absent["time"]
            fields.append(("time", datetime | None, msgspec.field(name=topic.time, default=None)))
    return msgspec.defstruct(
        "Decoded",
        fields,
        namespace=absent,
        tag=event_type,
        tag_field=topic.type,
        kw_only=True,
        gc=False,
    )
