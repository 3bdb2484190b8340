"""CloudEvents: structured, the whole event as JSON in the value; binary, its attributes in headers.

As the Kafka binding has it (CloudEvents 1.0.2, Kafka protocol binding 3.1 to 3.3): a content-type that
begins with `application/cloudevents` says structured. A record with neither that nor a
`ce_specversion` is taken as structured, since many producers leave the header out.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec

from migrator.kafka.envelope import HEADER, Headers, NoEnvelope, Open, Parts, Read, header, time_of
from migrator.settings import Topic

STRUCTURED = "application/cloudevents"
BATCH = "application/cloudevents-batch"


class _Event(msgspec.Struct, gc=False):
    specversion: str
    type: str
    id: str
    time: datetime | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


def opener(topic: Topic, read: Read) -> Open:
    """Make the function that opens CloudEvents; `read(value, headers)` decodes a binary event's value."""
    decode = msgspec.json.Decoder(_Event).decode

    def open_(value: bytes, headers: Headers) -> Parts:
        if not is_structured(headers):
            return _binary(topic, read, value, headers)
        try:
            event = decode(value)
        except (msgspec.ValidationError, msgspec.DecodeError) as exc:
            raise NoEnvelope(f"no structured CloudEvent: {exc}") from None
        _check_version(event.specversion)
        return Parts(
            event.type,
            event.id,
            event.time,
            _attribute(topic, value, headers),
            _data(event, read, headers),
        )

    return open_


def is_structured(headers: Headers) -> bool:
    """Whether the event lies in the value as a whole."""
    content_type = (_content_type(headers) or "").lower()
    if content_type.startswith(BATCH):
        raise NoEnvelope("a batch of CloudEvents, expected one event a record")
    return content_type.startswith(STRUCTURED) or header(headers, "ce_specversion") is None


def _content_type(headers: Headers) -> str | None:
    return next(
        (
            value.decode("utf-8", "replace")
            for name, value in headers() or ()
            if name.lower() == "content-type" and value is not None
        ),
        None,
    )


def _binary(topic: Topic, read: Read, value: bytes, headers: Headers) -> Parts:
    _check_version(header(headers, "ce_specversion"))
    missing = [name for name in ("ce_type", "ce_id") if header(headers, name) is None]
    if missing:
        raise NoEnvelope(f"no binary CloudEvent: it has no header {' and no '.join(missing)}")
    place = topic.version if topic.version.startswith(HEADER) else f"{HEADER}ce_{topic.version}"
    return Parts(
        header(headers, "ce_type") or "",
        header(headers, "ce_id"),
        time_of(header(headers, "ce_time"), "header:ce_time"),
        header(headers, place.removeprefix(HEADER)),
        read(value, headers).content,
    )


def _check_version(said: str | None) -> None:
    if said is None or not said.startswith("1."):
        raise NoEnvelope(f"a CloudEvent of specversion {said!r}, expected 1.0")


def _attribute(topic: Topic, value: bytes, headers: Headers) -> Any:
    """The extension that holds the version; only asked for where event classes say one."""
    if topic.version.startswith(HEADER):
        return header(headers, topic.version.removeprefix(HEADER))
    return msgspec.json.decode(value).get(topic.version)


def _data(event: _Event, read: Read, headers: Headers) -> Any:
    if event.data_base64 is None:
        return event.data or msgspec.Raw(b"null")
    try:
        data = base64.b64decode(event.data_base64, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NoEnvelope(f"data_base64 is no base64: {exc}") from None
    return read(data, headers).content
