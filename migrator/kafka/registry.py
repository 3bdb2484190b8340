"""Ask the Schema Registry: the schema of an id, each once a process, and which ids a topic uses.

Clients are made in the process that uses them and kept there: a connection does not outlive a fork.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from migrator.errors import CannotConnect, Refused, SettingsError
from migrator.kafka.envelope import Headers, NoEnvelope
from migrator.kafka.framing import Part, SchemaId, unframe
from migrator.settings import REGISTRY_FORMATS, Topic

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

_NUMBERS = (
    "timeout",
    "cache.capacity",
    "cache.latest.ttl.sec",
    "max.retries",
    "retries.wait.ms",
    "retries.max.wait.ms",
)


class NoSchema(NoEnvelope):
    """A schema that the registry does not have, or that migrator cannot use."""


class Registry:
    """A Schema Registry, through the client of Confluent; read-only, each schema asked for once."""

    def __init__(self, client: SchemaRegistryClient, where: str) -> None:
        self.where = where
        self._client = client
        self._schemas: dict[tuple[SchemaId, str | None], Schema] = {}

    def schema(self, schema: SchemaId) -> Schema:
        """The schema of an id or a GUID.

        Raises:
            NoSchema: the registry has none of that id, or it has rules that reading would need.
            CannotConnect: the registry does not answer, or does not let us in.
        """
        return self._usable(schema, self._ask(schema, fmt=None))

    def protobuf_file(self, schema: SchemaId) -> Schema:
        """The same with its text as a serialised file descriptor, where the registry can."""
        # The client's own cache does not tell the two forms apart.
        self._client.clear_caches()
        return self._ask(schema, fmt="serialized")

    def referenced(self, subject: str, version: int, *, fmt: str | None = None) -> Schema:
        """The schema that another one refers to; deleted ones, too, as long as the registry has them."""
        what = f"version {version} of the subject {subject}, to which a schema refers,"
        return self._answer(
            what, lambda: self._client.get_version(subject, version, deleted=True, fmt=fmt).schema
        )

    def _ask(self, schema: SchemaId, fmt: str | None) -> Schema:
        get = (
            self._client.get_schema_by_guid if isinstance(schema, str) else self._client.get_schema
        )
        if (schema, fmt) not in self._schemas:
            self._schemas[schema, fmt] = self._answer(
                f"schema {schema}", lambda: get(schema, fmt=fmt)
            )
        return self._schemas[schema, fmt]

    def _answer(self, what: str, ask: Any) -> Any:
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            return ask()
        except SchemaRegistryError as exc:
            if exc.http_status_code == 404:
                raise NoSchema(
                    f"{what} is not in the schema registry ({self.where})",
                    next_step="see whether [schema_registry] names the registry that the producers "
                    "use, and whether the schema was deleted there",
                ) from None
            raise self._no_answer(exc, status=exc.http_status_code) from exc
        except Exception as exc:
            raise self._no_answer(exc) from exc

    def _no_answer(self, exc: Exception, status: int | None = None) -> CannotConnect:
        if status in (401, 403):
            found = f"the schema registry ({self.where}) does not let us in: HTTP {status}"
            step = "correct basic.auth.user.info or its like in [schema_registry]"
        else:
            found = f"the schema registry ({self.where}) does not answer: {exc}"
            step = "start it or correct [schema_registry] url (MIGRATOR_SCHEMA_REGISTRY_URL)"
        return CannotConnect(found, next_step=step, registry=self.where)

    def _usable(self, schema: SchemaId, found: Schema) -> Schema:
        """Rules such as decryption would have to be run; a wrong row would be the price of not."""
        rules = found.rule_set
        every = (
            [] if rules is None else [*(rules.domain_rules or ()), *(rules.encoding_rules or ())]
        )
        for rule in every:
            mode = str(getattr(rule.mode, "value", rule.mode))
            if not rule.disabled and mode in ("READ", "WRITEREAD"):
                raise NoSchema(
                    f"schema {schema} has the rule {rule.name} ({rule.type}) for its readers",
                    next_step="migrator runs no rules of schemas: read a topic without them",
                )
        return found


def registry_of(properties: Mapping[str, str]) -> Registry:
    """The registry that `[schema_registry]` names, one client a process.

    Raises:
        SettingsError: no url, or a property that the client does not know.
    """
    return _registry(os.getpid(), tuple(sorted(properties.items())))


@functools.lru_cache
def _registry(_process: int, properties: tuple[tuple[str, str], ...]) -> Registry:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    settings: dict[str, Any] = dict(properties)
    if not settings.get("url"):
        raise SettingsError(
            "no schema registry is named",
            expected="MIGRATOR_SCHEMA_REGISTRY_URL, or [schema_registry] url in migrator.toml",
        )
    where = ", ".join(_shown(url) for url in settings["url"].split(","))
    try:
        settings |= {name: float(settings[name]) for name in _NUMBERS if name in settings}
        if settings.get("ssl.ca.location") == "false":
            settings["ssl.ca.location"] = False
        return Registry(SchemaRegistryClient.new_client(settings), where)
    except (ValueError, TypeError, OSError) as exc:
        raise SettingsError(
            f"[schema_registry] is wrong: {exc}",
            expected="url, and properties of the Schema Registry client of confluent-kafka",
        ) from exc


def _shown(url: str) -> str:
    """Without the password that a URL may hold."""
    parts = urlsplit(url.strip())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class RawRecord(Protocol):
    """What this module needs of a Kafka message."""

    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...


@dataclass(frozen=True)
class SeenSchema:
    """A schema that records of a topic are written in; `id` is a number or a GUID's text."""

    part: Part
    id: SchemaId
    records: int
    name: str | None


def resolve(topic: Topic, records: Iterable[RawRecord]) -> list[SeenSchema]:
    """Find the schemas that a sample of raw records is written in, and ask for each; read-only.

    Values and keys are looked at as far as `topic` says that they are written with a schema. A
    tombstone has none. The list is empty for a topic without schemas; no registry is asked then.
    It is ordered by part, ids and GUIDs. Each schema is compiled as a reader does, so that what passes here
    can be read there; no record is decoded.

    Raises:
        Refused: ids that the registry does not have or whose schema cannot be used, all of them in
            one error with the first place each was seen; or a value or key without a schema id.
        CannotConnect: the registry does not answer, or does not let us in.
        SettingsError: no registry is named, or its settings are wrong.
    """
    from migrator.kafka.schemas import SchemaReader

    written: list[tuple[Part, str]] = [("value", topic.format), ("key", topic.key)]
    parts = {part: fmt for part, fmt in written if fmt in REGISTRY_FORMATS}
    readers = {
        part: SchemaReader(fmt, registry_of(topic.schema_registry), part)
        for part, fmt in parts.items()
    }
    seen: dict[tuple[Part, SchemaId, tuple[int, ...]], list[str]] = {}
    for record in records:
        for part, fmt in parts.items():
            data = record.value() if part == "value" else record.key()
            if data is None:
                continue
            place = f"partition {record.partition()}, offset {record.offset()}"
            try:
                if part == "value" and _is_structured(topic, record.headers):
                    continue
                framed = unframe(_bytes(data), record.headers, part, has_indexes=fmt == "protobuf")
            except NoEnvelope as exc:
                raise Refused(
                    f"{exc} ({place})", expected=f"a {part} in {fmt}", next_step=exc.next_step
                ) from None
            seen.setdefault((part, framed.schema, framed.indexes), []).append(place)
    return _resolved(seen, readers)


def _resolved(
    seen: dict[tuple[Part, SchemaId, tuple[int, ...]], list[str]], readers: Mapping[Part, Any]
) -> list[SeenSchema]:
    found, missing, next_step = [], [], ""
    for (part, schema, indexes), places in sorted(seen.items(), key=_in_order):
        try:
            name = readers[part].name_of(schema, indexes)
        except NoEnvelope as exc:
            missing.append(f"{exc}; the {part} of {len(places)} records, first {places[0]}")
            next_step = next_step or exc.next_step
        else:
            found.append(SeenSchema(part, schema, len(places), name))
    if missing:
        raise Refused(
            "\n".join(missing),
            expected="every schema that the topic's records name",
            next_step=next_step,
            schemas=missing,
        )
    return found


def _in_order(item: tuple[tuple[Part, SchemaId, tuple[int, ...]], list[str]]) -> tuple[Any, ...]:
    """Ids by number, then GUIDs."""
    part, schema, indexes = item[0]
    is_guid = isinstance(schema, str)
    return part, is_guid, "" if is_guid else schema, str(schema), indexes


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _is_structured(topic: Topic, headers: Headers) -> bool:
    from migrator.kafka.cloudevents import is_structured

    return topic.envelope == "cloudevents" and is_structured(headers)
