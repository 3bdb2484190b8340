"""What is in a topic: event types, keys, sizes, gaps, and what would not fold; read-only.

A survey reads some stretches of every partition, or everything. It counts what it read; what it says
of the whole is an estimate unless it is complete.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from migrator.errors import MigratorError, Refused
from migrator.kafka import sample
from migrator.kafka.client import quiet
from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope
from migrator.kafka.log import Limits, Slice, read_in_turn
from migrator.kafka.registry import NoSchema, SeenSchema, resolve
from migrator.kafka.topics import TopicRange
from migrator.projections.distinct import Distinct, DistinctKeys
from migrator.projections.events import TOMBSTONE
from migrator.projections.payload import payload_decoder
from migrator.settings import REGISTRY_FORMATS

if TYPE_CHECKING:
    from migrator.projections.definition import Definition
    from migrator.settings import Settings

SHOWN = 3


@dataclass(frozen=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int
    key: str | None

    def __str__(self) -> str:
        return f"topic {self.topic}, partition {self.partition}, offset {self.offset}, key {self.key!r}"


@dataclass
class Kind:
    """One event type: how often it was met, and where first; `keyless` is the first without a key.

    `versions` are counted where an event class of the projections says one.
    """

    type: str
    events: int
    first: Place
    keyless: Place | None = None
    no_key: int = 0
    versions: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A record whose envelope, or whose payload for a projection's event class, does not decode."""

    place: Place
    type: str | None
    said: str
    next_step: str


@dataclass
class Survey:
    """What was met. `covered` offsets were looked at, and held `events` records, tombstones too."""

    topic: TopicRange
    complete: bool
    events: int = 0
    covered: int = 0
    bytes: int = 0
    tombstones: int = 0
    unreadable_events: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    keys: DistinctKeys = field(default_factory=DistinctKeys)
    oldest_ms: dict[int, int] = field(default_factory=dict)
    newest_ms: int | None = None
    seconds: float = 0.0
    schemas: list[SeenSchema] = field(default_factory=list)
    missing_schemas: Refused | None = None
    _means: list[float] = field(default_factory=list)

    @property
    def gaps(self) -> int:
        """Offsets that hold no event: control records, aborted transactions, compaction."""
        return self.covered - self.events

    @property
    def events_estimate(self) -> int:
        """How many events the whole topic has; exact where complete, at most so many unsampled."""
        return self._of_all(self.events) if self.covered else self.topic.events

    @property
    def bytes_estimate(self) -> tuple[int, int]:
        """Bytes of keys and values in the whole topic, and how far off that may be (95 %)."""
        if self.covered == 0:
            return 0, 0
        if self.complete or len(self._means) < 2:
            return self._of_all(self.bytes), 0
        mean = sum(self._means) / len(self._means)
        variance = sum((m - mean) ** 2 for m in self._means) / (len(self._means) - 1)
        error = 1.96 * math.sqrt(variance / len(self._means)) * self.events_estimate
        return self._of_all(self.bytes), int(error)

    @property
    def keys_estimate(self) -> Distinct:
        return self.keys.counted() if self.complete else self.keys.estimated(self.topic.events)

    def _of_all(self, number: int) -> int:
        return round(number * self.topic.events / self.covered) if self.covered else 0

    def take_mean(self, size: int, events: int) -> None:
        self._means.append(size / events)


def survey(
    settings: Settings,
    topic: TopicRange,
    definitions: Sequence[Definition],
    *,
    events: int | None,
    heard: Callable[[int], None] = lambda _events: None,
) -> Survey:
    """Look at about `events` of the topic's events, or at all of them where it is None.

    Payloads are decoded as the definitions' handlers would have them. `heard` is told how many
    events were looked at.

    Raises:
        MigratorError: a partition cannot be read.
    """
    began = time.perf_counter()
    kafka = quiet(settings.kafka_config)
    everything = [Slice(p.partition, p.low, p.end) for p in topic.partitions if p.end > p.low]
    rounds = [everything] if events is None else sample.plan(topic, events)
    covered = sum(s.end - s.start for each in rounds for s in each)
    found = Survey(topic, complete=covered == topic.events)
    eye = _Eye(settings, found, definitions, asks_for_schemas=events is not None)
    if events is None:
        memory = settings.projections.memory_mb * 1_000_000 // 4
        turns = read_in_turn(
            kafka, topic.name, everything, limits=Limits(memory_bytes=memory), topic_id=topic.id
        )
        for part, batches in turns:
            for records in batches:
                eye.see(part, records, 0)
                heard(found.events)
            found.covered += part.end - part.start
    else:
        taken: list[Message] = []
        for part, records in sample.read(kafka, topic, rounds):
            eye.see(part, records, part.end - part.start)
            taken += records
            found.covered += part.end - part.start
            heard(found.events)
        _resolve(settings, found, taken)
    found.seconds = time.perf_counter() - began
    return found


def _resolve(settings: Settings, found: Survey, records: Sequence[Message]) -> None:
    """Ask the registry for every schema that the sampled records are written in."""
    topic = settings.topic(found.topic.name)
    if {topic.format, topic.key}.isdisjoint(REGISTRY_FORMATS):
        return
    try:
        found.schemas = resolve(topic, records)
    except Refused as exc:
        # A record that names no schema at all is one that does not decode.
        found.missing_schemas = exc if "schemas" in exc.data else None


class _Eye:
    """Looks at records, and notes them in the survey."""

    def __init__(
        self,
        settings: Settings,
        found: Survey,
        definitions: Sequence[Definition],
        *,
        asks_for_schemas: bool,
    ) -> None:
        self._found = found
        self._asks_for_schemas = asks_for_schemas
        classes = {event for each in definitions for event in each.event_classes}
        self._opener = Opener(settings.topic(found.topic.name), classes)
        is_plain = self._opener.plain is not None
        self._decoders: dict[str, list[Callable[[Any], Any]]] = {}
        for definition in definitions:
            for event_type, handler in definition.handlers.items():
                if event_type != TOMBSTONE:
                    decoders = self._decoders.setdefault(event_type, [])
                    decoders.append(payload_decoder(handler.event, is_plain=is_plain))

    def see(self, part: Slice, records: Sequence[Message], offsets: int) -> None:
        found, before = self._found, self._found.bytes
        for record in records:
            self._one(record)
        if records:
            found.take_mean(found.bytes - before, len(records))
            stamp = records[0].timestamp()[1]
            if stamp >= 0 and part.start <= self._low(part.partition):
                found.oldest_ms.setdefault(part.partition, stamp)
        found.keys.add(part.partition, self._keys(records), offsets)

    def _low(self, partition: int) -> int:
        return next(p.low for p in self._found.topic.partitions if p.partition == partition)

    def _one(self, record: Message) -> None:
        found, value = self._found, record.value()
        found.events += 1
        found.bytes += len(value or b"") + len(record.key() or b"")
        stamp = record.timestamp()[1]
        if stamp >= 0 and (found.newest_ms is None or stamp > found.newest_ms):
            found.newest_ms = stamp
        if value is None:
            found.tombstones += 1
            self._count(TOMBSTONE, record)
            return
        try:
            envelope = self._open(value, record)
        except MigratorError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a format's decoder raises
            self._unreadable(record, None, exc)
            return
        self._count(envelope.type, record, getattr(envelope, "version", None))
        try:
            for decode in self._decoders.get(envelope.type, ()):
                decode(envelope.payload)
        except MigratorError:
            raise
        except Exception as exc:  # noqa: BLE001
            self._unreadable(record, envelope.type, exc)

    def _open(self, value: bytes, record: Message) -> Any:
        plain = self._opener.plain
        return plain(value) if plain else self._opener.open(value, record.headers)

    def _count(self, event_type: str, record: Message, version: int | None = None) -> None:
        kind = self._found.kinds.get(event_type)
        if kind is None:
            kind = self._found.kinds[event_type] = Kind(event_type, 0, _place(record))
        kind.events += 1
        if version is not None:
            kind.versions[version] = kind.versions.get(version, 0) + 1
        if record.key() is None:
            kind.no_key += 1
            kind.keyless = kind.keyless or _place(record)

    def _keys(self, records: Iterable[Message]) -> Iterator[bytes]:
        """Keys as the rows have them: the bytes of one key may differ by the id of a schema."""
        read = self._opener.key
        for record in records:
            key: Any = record.key()
            try:
                key = key if read is None else read(key, record.headers)
            except NoEnvelope as exc:
                self._unreadable(record, None, exc)
                continue
            if key is not None:
                yield key.encode() if isinstance(key, str) else key

    def _unreadable(self, record: Message, event_type: str | None, exc: Exception) -> None:
        self._found.unreadable_events += 1
        if isinstance(exc, NoSchema) and self._asks_for_schemas:
            return
        if len(self._found.unreadable) < SHOWN:
            step = getattr(exc, "next_step", "")
            self._found.unreadable.append(Unreadable(_place(record), event_type, str(exc), step))


def _place(record: Message) -> Place:
    key = record.key()
    return Place(
        record.topic() or "",
        record.partition() or 0,
        record.offset() or 0,
        key.decode("utf-8", "replace") if isinstance(key, bytes) else key,
    )
