"""Open a record's envelope: its type, id and time, and the payload still undecoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from migrator.settings import Topic

HEADER = "header:"
WHOLE = "."


class Envelope(NamedTuple):
    """What a record says of its event. `id` may be a number, as the log has it."""

    type: str
    id: str | int | None
    time: datetime | None  # None: the record's own timestamp counts
    payload: Any  # msgspec.Raw or bytes: JSON text, not yet decoded
    version: int | None = None  # None: nobody asked, since no event class says a version


class Versioned(NamedTuple):
    """A payload with its version: what an Envelope holds where event classes say versions."""

    payload: Any
    version: int


class NoEnvelope(Exception):
    """A record that cannot be read as an event; the message says what is missing.

    `next_step` says what to do about it, where that is not to correct the class or the settings.
    """

    def __init__(self, said: str, *, next_step: str = "") -> None:
        super().__init__(said)
        self.next_step = next_step


Headers = Callable[[], list[tuple[str, bytes]] | None]


class Opener:
    """Opens the records of one topic.

    Where every part lies in the JSON envelope, `plain` alone does it: it takes the value and gives
    an object like an Envelope, and raises msgspec's own errors. Else it is None, and `open` does.
    Versions are looked at, by `open`, where one of the `events`, the classes, is newer than 1.
    """

    def __init__(self, topic: Topic, events: Iterable[type] = ()) -> None:
        self._topic = topic
        self._is_versioned = any(getattr(event, "__event_version__", 1) > 1 for event in events)
        self._fields = _fields(topic, is_versioned=self._is_versioned)
        self._decode = _decoder(self._fields).decode if self._fields else None
        placed_elsewhere = topic.time is not None and "time" not in self._fields
        is_plain = {"type", "id", "payload"} <= set(self._fields) and not (
            placed_elsewhere or self._is_versioned
        )
        self.plain: Callable[[bytes], Any] | None = self._decode if is_plain else None

    def open(self, value: bytes, headers: Headers) -> Envelope:
        """Open a record whose parts lie in its headers, or that is itself the payload.

        Raises:
            NoEnvelope: a part is missing or malformed.
        """
        fields, topic = self._fields, self._topic
        try:
            found: Any = self._decode(value) if self._decode else None
        except (msgspec.ValidationError, msgspec.DecodeError) as exc:
            raise NoEnvelope(str(exc)) from None
        event_type = found.type if "type" in fields else _header(headers(), topic.type)
        if event_type is None:
            raise NoEnvelope(f"the record has no {topic.type}")
        payload, version = found.payload if "payload" in fields else value, None
        if self._is_versioned:
            said = found.version if "version" in fields else _header(headers(), topic.version)
            version = _version(said, topic.version)
            payload = Versioned(payload, version)
        return Envelope(
            type=event_type,
            id=found.id if "id" in fields else _header(headers(), topic.id),
            time=found.time if "time" in fields else _header_time(headers, topic.time),
            payload=payload,
            version=version,
        )


def _fields(topic: Topic, *, is_versioned: bool) -> dict[str, str]:
    """Which parts lie in the JSON envelope, and under which field."""
    places = {"type": topic.type, "id": topic.id, "time": topic.time, "payload": topic.payload}
    if is_versioned:
        places["version"] = topic.version
    return {
        part: place
        for part, place in places.items()
        if place is not None and not place.startswith(HEADER) and place != WHOLE
    }


def _version(said: int | str | None, place: str) -> int:
    """A record without a version is of the first: it was written before there were any."""
    if said is None:
        return 1
    if isinstance(said, str) and said.isascii() and said.isdigit():
        said = int(said)
    if isinstance(said, str) or said < 1:
        raise NoEnvelope(f"{place} is no version: {said!r}, expected a whole number, from 1")
    return said


def _decoder(fields: dict[str, str]) -> msgspec.json.Decoder[Any]:
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
