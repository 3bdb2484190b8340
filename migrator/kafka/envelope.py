"""What a record says of its event, whatever the form: the words that all readers of envelopes share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

HEADER = "header:"
Headers = Callable[[], list[tuple[str, bytes]] | None]


class Envelope(NamedTuple):
    """What a record says of its event. `id` may be a number, as the log has it."""

    type: str
    id: str | int | None
    time: datetime | None  # None: the record's own timestamp counts
    payload: Any  # msgspec.Raw or bytes: JSON text, not yet decoded; else a decoded document
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


class Parts(NamedTuple):
    """The parts of an envelope as they lie there; the version has not been looked at."""

    type: str
    id: str | int | None
    time: datetime | None
    version: Any
    payload: Any


class Document(NamedTuple):
    """A decoded value: `content` is JSON text, as bytes, or plain Python data.

    `name` is the full name of the schema it was written in, where it has one.
    """

    name: str | None
    content: Any


Read = Callable[[bytes, Headers], Document]
Open = Callable[[bytes, Headers], Parts]


def header(headers: Headers, name: str) -> str | None:
    """The text of a header, or None where there is none of that name."""
    raw = raw_header(headers, name)
    return None if raw is None else raw.decode("utf-8", "replace")


def raw_header(headers: Headers, name: str) -> bytes | None:
    """The bytes of a header, or None where there is none of that name."""
    for key, value in headers() or ():
        if key == name and value is not None:
            return value
    return None


def time_of(said: Any, place: str) -> datetime | None:
    """A time as ISO 8601 text or as a decoded datetime.

    Raises:
        NoEnvelope: it is neither.
    """
    if said is None or isinstance(said, datetime):
        return said
    try:
        return datetime.fromisoformat(said)
    except (ValueError, TypeError):
        raise NoEnvelope(f"{place} is no ISO 8601 time: {said!r:.80}") from None


def version_of(said: Any, place: str) -> int:
    """A record without a version is of the first: it was written before there were any.

    Raises:
        NoEnvelope: it is no whole number from 1.
    """
    if said is None:
        return 1
    number = int(said) if isinstance(said, str) and said.isascii() and said.isdigit() else said
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise NoEnvelope(f"{place} is no version: {said!r:.80}, expected a whole number, from 1")
    return number
