"""Bring a build up to given offsets from its own positions: a shadow, an archived build, or live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import Message
from psycopg import sql

from migrator.errors import MigratorError, Overtaken
from migrator.kafka import topics
from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Part, Slice, read_together
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import writers
from migrator.projections.apply import Applier
from migrator.projections.build import Build, Position
from migrator.projections.definition import Definition
from migrator.projections.writers import Advance

if TYPE_CHECKING:
    from migrator.settings import Settings

BATCH_EVENTS = 5000

Until = Mapping[tuple[str, int], int]
"""A next_offset for each topic and partition."""


def catch_up(
    conn: Connection,
    settings: Settings,
    build: Build,
    definition: Definition,
    table: sql.Identifier,
    until: Until | None = None,
    *,
    in_transaction: bool = False,
) -> int:
    """Apply what lies between the build's positions and `until`; returns how many events that were.

    `until` defaults to the topics' present ends; a partition that is further already, or that it
    does not name, stays where it is. Batches commit one by one, each with its positions; with
    `in_transaction` all of them belong to the caller's, who has the projection's lock, and a
    killed one leaves nothing. Idempotent: what is applied is not applied again.

    Raises:
        Overtaken: another projector has moved a position meanwhile; go on by calling it again.
        MigratorError: a topic cannot be read, or is another one than the build was made from; or a
            record cannot be folded, which the message names.
    """
    held = {(p.topic, p.partition): p for p in builds.positions(conn, build.build)}
    until = _ends(settings, held.values()) if until is None else until
    parts = _parts(held, definition.topics, until)
    if not parts:
        return 0
    applier = Applier(
        conn, {name: settings.topic(name) for name in definition.topics}, build, definition, table
    )
    ids = {topic: held[topic, parts[0][0].partition].topic_id for topic in definition.topics}
    limits = Limits(quiet_s=settings.projections.no_progress_s)
    events = 0
    for part, batches in read_together(quiet(settings.kafka_config), ids, parts, limits=limits):
        stretch = _Stretch(dict(zip(definition.topics, part, strict=True)))
        for records in _rebatched(batches):
            with _transaction(conn, build, table, is_callers=in_transaction):
                applier.apply(records, stretch.moves(records))
            events += len(records)
        if last := stretch.rest():
            with _transaction(conn, build, table, is_callers=in_transaction):
                applier.apply([], last)
    return events


def lag(conn: Connection, build: Build, until: Until) -> int:
    """How many offsets lie between the build's positions and `until`; read-only."""
    held = builds.positions(conn, build.build)
    return sum(max(until.get((p.topic, p.partition), 0) - p.next_offset, 0) for p in held)


def _ends(settings: Settings, held: Iterable[Position]) -> Until:
    """The topics' present ends, where they are still the topics that the build was made from."""
    positions = list(held)
    ends: dict[tuple[str, int], int] = {}
    for name in dict.fromkeys(p.topic for p in positions):
        now = topics.describe(settings.kafka_config, name)
        for _, found in builds.differences(positions, now):
            raise MigratorError(
                found,
                expected="the topic that the build was made from",
                next_step="migrator rebuild-projections --restart builds it anew",
                topic=name,
            )
        ends |= {(name, p.partition): p.end for p in now.partitions}
    return ends


def _parts(
    held: Mapping[tuple[str, int], Position], names: Sequence[str], until: Until
) -> list[Part]:
    found = []
    for number in sorted({partition for _, partition in held}):
        starts = [held[name, number].next_offset for name in names]
        ends = [
            max(until.get((name, number), start), start)
            for name, start in zip(names, starts, strict=True)
        ]
        if starts != ends:
            found.append(
                tuple(Slice(number, start, end) for start, end in zip(starts, ends, strict=True))
            )
    return found


class _Stretch:
    """Where each topic of a part stands, batch by batch."""

    def __init__(self, slices: Mapping[str, Slice]) -> None:
        self._slices = slices
        self._next = {topic: each.start for topic, each in slices.items()}

    def moves(self, records: Sequence[Message]) -> list[Advance]:
        """How a batch moves the positions of the topics that it has records of."""
        counts: dict[str, int] = {}
        reached: dict[str, int] = {}
        for record in records:
            topic, offset = record.topic(), record.offset()
            assert topic is not None
            assert offset is not None
            counts[topic] = counts.get(topic, 0) + 1
            reached[topic] = offset + 1
        return [self._moved(topic, reached[topic], counts[topic]) for topic in reached]

    def rest(self) -> list[Advance]:
        """How the positions reach the end behind the last record: control records have offsets."""
        return [
            self._moved(topic, each.end, 0)
            for topic, each in self._slices.items()
            if self._next[topic] < each.end
        ]

    def _moved(self, topic: str, to: int, events: int) -> Advance:
        expected, self._next[topic] = self._next[topic], to
        return Advance(topic, self._slices[topic].partition, expected, to, events)


def _rebatched(batches: Iterable[list[Message]]) -> Iterator[list[Message]]:
    gathered: list[Message] = []
    for batch in batches:
        gathered += batch
        if len(gathered) >= BATCH_EVENTS:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


@contextmanager
def _transaction(
    conn: Connection, build: Build, table: sql.Identifier, *, is_callers: bool
) -> Iterator[None]:
    if is_callers:
        yield
        return
    with conn.transaction():
        writers.share(conn, build.projection)
        now = builds.numbered(conn, build.build)
        if now is None or (now.state == "live") != (table == build.target):
            raise Overtaken(
                f"build {build.build} of {build.projection} was {build.state}, and is "
                f"{now.state if now else 'gone'} now",
                expected=f"its rows in {table.as_string()}",
                next_step="run the same command again",
                build=build.build,
            )
        yield
