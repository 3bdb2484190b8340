"""The plain envelope: every part lies where [topics] says, in the value, a header or the schema's name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from migrator.kafka.envelope import HEADER, Headers, NoEnvelope, Open, Parts, Read, header, time_of
from migrator.settings import SCHEMA_FULL_NAME, SCHEMA_NAME, WHOLE, Topic

Decoder = msgspec.json.Decoder[Any]


def fields(topic: Topic, *, is_versioned: bool) -> dict[str, str]:
    """Which parts lie in the value, and under which field."""
    places = {"type": topic.type, "id": topic.id, "time": topic.time, "payload": topic.payload}
    if is_versioned:
        places["version"] = topic.version
    elsewhere = (WHOLE, SCHEMA_NAME, SCHEMA_FULL_NAME)
    return {
        part: place
        for part, place in places.items()
        if place is not None and not place.startswith(HEADER) and place not in elsewhere
    }


def decoder(fields: Mapping[str, str]) -> Decoder:
    """Make the decoder of a JSON envelope: an object with the parts that lie in it."""
    kinds: dict[str, tuple[Any, Any]] = {
        "type": (str, msgspec.NODEFAULT),
        "id": (str | int | None, None),
        "time": (datetime | None, None),
        "payload": (msgspec.Raw, msgspec.NODEFAULT),
        "version": (int | str | None, None),
    }
    struct = msgspec.defstruct(
        "Envelope",
        [
            (part, kinds[part][0], msgspec.field(name=place, default=kinds[part][1]))
            for part, place in fields.items()
        ],
        # A part that the topic does not place has the value of one that is absent.
        namespace={} if "time" in fields else {"time": None},
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(struct)


def opener(topic: Topic, read: Read, fields: Mapping[str, str]) -> Open:
    """Make the function that opens records part by part; `read(value, headers)` decodes the value."""
    decode = decoder(fields).decode if fields else None

    def open_(value: bytes, headers: Headers) -> Parts:
        name, content = read(value, headers)
        if isinstance(content, bytes):
            found = _of_text(content, decode)
        else:
            found = _of_document(content, fields)

        def part(which: str, place: str | None) -> Any:
            if place is None:
                return None
            if which in fields:
                return getattr(found, which)
            if place in (SCHEMA_NAME, SCHEMA_FULL_NAME):
                return name if name is None or place != SCHEMA_NAME else name.rpartition(".")[2]
            return header(headers, place.removeprefix(HEADER))

        event_type = part("type", topic.type)
        if event_type is None:
            raise NoEnvelope(f"the record has no {topic.type}")
        return Parts(
            event_type,
            part("id", topic.id),
            time_of(part("time", topic.time), topic.time or ""),
            part("version", topic.version),
            found.payload if "payload" in fields else content,
        )

    return open_


def _of_text(content: bytes, decode: Any) -> Any:
    try:
        return decode(content) if decode else None
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise NoEnvelope(str(exc)) from None


def _of_document(content: Any, fields: Mapping[str, str]) -> Any:
    """The parts of a decoded value; fields are of its top level."""
    if not fields:
        return None
    if not isinstance(content, dict):
        raise NoEnvelope(f"the value is no record: {content!r:.80}")
    for part in ("type", "payload"):
        if part in fields and fields[part] not in content:
            raise NoEnvelope(f"the record has no field {fields[part]}")
    found = {part: content.get(place) for part, place in fields.items()}
    if "type" in found and not isinstance(found["type"], str):
        raise NoEnvelope(f"the field {fields['type']} is no text: {found['type']!r:.80}")
    if not isinstance(found.get("id"), str | int | None):
        found["id"] = str(found["id"])
    return _Found(**found)


class _Found:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)
