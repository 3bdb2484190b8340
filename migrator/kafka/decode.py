"""Open a record's envelope: its type, id and time, and the payload still undecoded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from migrator.settings import Topic

HEADER = "header:"
WHOLE = "."


class Envelope(NamedTuple):
    type: str
    id: str | None
    time: datetime | None  # None: the record's own timestamp counts
    payload: Any  # msgspec.Raw or bytes: JSON text, not yet decoded


class NoEnvelope(Exception):
    """A record that does not have the topic's envelope; the message says what is missing."""


Opener = Callable[[bytes, Callable[[], list[tuple[str, bytes]] | None]], Envelope]


def envelope_opener(topic: Topic) -> Opener:
    """Make the function that opens a topic's records: `(value, headers) -> Envelope`.

    The function raises NoEnvelope.
    """
    fields = _fields(topic)
    decode = _decoder(fields).decode if fields else None

    def opened(value: bytes, headers: Callable[[], list[tuple[str, bytes]] | None]) -> Envelope:
        try:
            found: Any = decode(value) if decode else None
        except (msgspec.ValidationError, msgspec.DecodeError) as exc:
            raise NoEnvelope(str(exc)) from None
        event_type = found.type if "type" in fields else _header(headers(), topic.type)
        event_id = found.id if "id" in fields else _header(headers(), topic.id)
        if event_type is None:
            raise NoEnvelope(f"the record has no {topic.type}")
        time = found.time if "time" in fields else _header_time(headers, topic.time)
        payload = found.payload if "payload" in fields else value
        return Envelope(event_type, None if event_id is None else str(event_id), time, payload)

    return opened


def _fields(topic: Topic) -> dict[str, str]:
    """Which parts lie in the JSON envelope, and under which field."""
    places = {"type": topic.type, "id": topic.id, "time": topic.time, "payload": topic.payload}
    return {
        part: place
        for part, place in places.items()
        if place is not None and not place.startswith(HEADER) and place != WHOLE
    }


def _decoder(fields: dict[str, str]) -> msgspec.json.Decoder[Any]:
    kinds: dict[str, tuple[Any, Any]] = {
        "type": (str, msgspec.NODEFAULT),
        "id": (str | int | None, None),
        "time": (datetime | None, None),
        "payload": (msgspec.Raw, msgspec.NODEFAULT),
    }
    struct = msgspec.defstruct(
        "Envelope",
        [
            (part, kinds[part][0], msgspec.field(name=place, default=kinds[part][1]))
            for part, place in fields.items()
        ],
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(struct)


def _header(headers: list[tuple[str, bytes]] | None, place: str) -> str | None:
    name = place.removeprefix(HEADER)
    for key, value in headers or ():
        if key == name and value is not None:
            return value.decode("utf-8", "replace")
    return None


def _header_time(
    headers: Callable[[], list[tuple[str, bytes]] | None], place: str | None
) -> datetime | None:
    said = None if place is None else _header(headers(), place)
    try:
        return None if said is None else datetime.fromisoformat(said)
    except ValueError:
        raise NoEnvelope(f"{place} is no ISO 8601 time: {said!r}") from None


def payload_decoder(event: type) -> Callable[[Any], Any]:
    """Make the function that decodes a payload into `event`; it raises msgspec.ValidationError."""
    return msgspec.json.Decoder(event).decode
