"""Open the records of a topic, whatever their envelope and format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from migrator.errors import SettingsError
from migrator.kafka import plain
from migrator.kafka.envelope import (
    HEADER,
    Document,
    Envelope,
    Headers,
    Open,
    Read,
    Versioned,
    version_of,
)
from migrator.settings import Topic


class Opener:
    """Opens the records of one topic; it is made in the process that uses it.

    Where every part lies in a JSON envelope, `plain` alone does it: it takes the value and gives an
    object like an Envelope, and raises msgspec's own errors. Else it is None, and `open` does.
    `key` gives a record's key as text, from its raw key and headers; it is None where keys are text.
    Versions are looked at, by `open`, where one of the `events`, the classes, is newer than 1.
    """

    def __init__(self, topic: Topic, events: Iterable[type] = ()) -> None:
        self._topic = topic
        self._is_versioned = any(getattr(event, "__event_version__", 1) > 1 for event in events)
        if self._is_versioned and _has_no_version(topic):
            raise SettingsError(
                "an event class says version=, and Debezium's change events have none",
                expected='version = "header:NAME" in [topics] of migrator.toml',
            )
        fields = plain.fields(topic, is_versioned=self._is_versioned)
        self._open = _open(topic, fields)
        self.plain: Callable[[bytes], Any] | None = None
        if _is_quick(topic, fields) and not self._is_versioned:
            self.plain = plain.decoder(fields).decode
        self.key: Callable[[Any, Headers], str | None] | None = None
        if topic.key != "text":
            from migrator.kafka.keys import key_reader

            self.key = key_reader(topic)

    def open(self, value: bytes, headers: Headers) -> Envelope:
        """Open any record of the topic.

        Raises:
            NoEnvelope: a part is missing or malformed, or the value does not fit its schema.
            CannotConnect: the schema registry does not answer.
        """
        parts = self._open(value, headers)
        version, payload = None, parts.payload
        if self._is_versioned:
            version = version_of(parts.version, self._topic.version)
            payload = Versioned(payload, version)
        return Envelope(parts.type, parts.id, parts.time, payload, version)


def _has_no_version(topic: Topic) -> bool:
    return topic.envelope == "debezium" and not topic.version.startswith(HEADER)


def _is_quick(topic: Topic, fields: dict[str, str]) -> bool:
    in_the_value = {"type", "id", "payload"} <= set(fields)
    return (
        topic.format == "json"
        and topic.envelope == "plain"
        and in_the_value
        and (topic.time is None or "time" in fields)
    )


def _open(topic: Topic, fields: dict[str, str]) -> Open:
    """Only what the topic needs is imported: a client of the registry costs a tenth of a second."""
    read = _as_it_is if topic.format == "json" else _through_registry(topic)
    if topic.envelope == "cloudevents":
        from migrator.kafka import cloudevents

        return cloudevents.opener(topic, read)
    if topic.envelope == "debezium":
        from migrator.kafka import debezium

        return debezium.opener(topic, read)
    return plain.opener(topic, read, fields)


def _as_it_is(value: bytes, _headers: Headers) -> Document:
    return Document(None, value)


def _through_registry(topic: Topic) -> Read:
    from migrator.kafka.registry import registry_of
    from migrator.kafka.schemas import SchemaReader

    return SchemaReader(topic.format, registry_of(topic.schema_registry), "value").read
