"""Replay some partitions of a topic into the shadow tables of one or more builds: a worker's work.

A partition's rows and its next_offset commit in one transaction, for all builds of the pass at once.
A partition that a lost worker had not committed has left nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from confluent_kafka import Message
from psycopg import sql

from migrator.errors import MigratorError, Refused, UsageError
from migrator.kafka.decode import Envelope, NoEnvelope, envelope_opener, payload_decoder
from migrator.kafka.log import Slice, read
from migrator.kafka.topics import quiet
from migrator.postgres.connect import Connection, connect
from migrator.postgres.copy import copy_rows, line_formatter
from migrator.projections import registry
from migrator.projections.events import TOMBSTONE, Meta
from migrator.projections.fold import Fold, NoKey, Unhandled
from migrator.settings import Settings


@dataclass(frozen=True)
class Target:
    """A build that the pass feeds."""

    build: int
    schema: str
    projection: str
    definition_hash: str


@dataclass(frozen=True)
class Task:
    """Whole partitions of one topic, and the builds each of them is folded into."""

    settings: Settings
    directory: Path
    topic: str
    slices: tuple[Slice, ...]
    targets: dict[int, tuple[Target, ...]]


@dataclass(frozen=True)
class Progress:
    """How far a worker has read one partition."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    events: int
    committed: bool = False


def replay(task: Task, report: Callable[[Progress], None]) -> None:
    """Read, fold, and commit each partition of the task as it ends.

    Raises:
        MigratorError: a record cannot be read, decoded or folded; it names where it lies.
        Refused: an event type that no handler takes, or a row that the table does not take.
    """
    worker = _Worker(task)
    by_partition = {s.partition: s for s in task.slices}
    names = ", ".join(worker.names)
    with connect(task.settings, f"replay {names}", statement_timeout_ms=0) as conn:
        for batch in read(quiet(task.settings.kafka_config), task.topic, list(task.slices)):
            worker.fold(batch.records)
            for partition, offset in _reached(batch.records).items():
                report(worker.progress(by_partition[partition], offset))
            for partition in batch.ended:
                worker.commit(conn, by_partition[partition])
                done = by_partition[partition]
                report(worker.progress(done, done.end, committed=True))


def _reached(records: list[Message]) -> dict[int, int]:
    return {r.partition(): r.offset() + 1 for r in records}


class _Worker:
    """Holds the folds of the task's partitions, one for each build."""

    def __init__(self, task: Task) -> None:
        known = registry.load(task.directory)
        self.task = task
        self.names = sorted({t.projection for ts in task.targets.values() for t in ts})
        for targets in task.targets.values():
            for target in targets:
                if known[target.projection].hash != target.definition_hash:
                    raise UsageError(
                        f"{target.projection} was edited while it was being rebuilt",
                        next_step="run the same command again",
                    )
        self.folds = {
            partition: [(t, Fold(known[t.projection].definition)) for t in targets]
            for partition, targets in task.targets.items()
        }
        self.events = dict.fromkeys(task.targets, 0)
        self._open = envelope_opener(task.settings.topic(task.topic))
        self._decoders = {
            event: payload_decoder(event)
            for name in self.names
            for event in known[name].definition.event_classes
        }

    def progress(self, part: Slice, offset: int, *, committed: bool = False) -> Progress:
        return Progress(
            self.task.topic,
            part.partition,
            offset,
            part.end,
            self.events[part.partition],
            committed,
        )

    def fold(self, records: Iterable[Message]) -> None:
        for record in records:
            partition = record.partition()
            assert partition is not None
            self.events[partition] += 1
            try:
                self._apply(record, [fold for _, fold in self.folds[partition]])
            except Exception as exc:
                raise _named(exc, record) from exc

    def _apply(self, record: Message, folds: list[Fold]) -> None:
        raw_key, value = record.key(), record.value()
        key = raw_key.decode() if isinstance(raw_key, bytes) else raw_key
        if value is None:
            for fold in folds:
                fold.bury(key, lambda: _meta(record, key, Envelope(TOMBSTONE, None, None, None)))
            return
        envelope = self._open(value, record.headers)
        decoded: dict[type, Any] = {}
        for fold in folds:
            if fold.wants(envelope.type):
                event = fold.definition.handlers[envelope.type].event
                if event not in decoded:
                    decoded[event] = self._decoded(event, envelope)
                fold.apply(envelope.type, decoded[event], key, lambda: _meta(record, key, envelope))

    def _decoded(self, event: type, envelope: Envelope) -> Any:
        try:
            return self._decoders[event](envelope.payload)
        except (msgspec.ValidationError, msgspec.DecodeError) as exc:
            raise NoEnvelope(f"{envelope.type}: {exc}") from None

    def commit(self, conn: Connection, part: Slice) -> None:
        """Write one partition's rows and its position, for every build, in one transaction."""
        try:
            with conn.transaction():
                for target, fold in self.folds.pop(part.partition):
                    if self._advance(conn, target, part, len(fold.rows)):
                        _write(conn, target, fold)
        except psycopg.DataError as exc:
            raise Refused(
                f"PostgreSQL does not take a row of partition {part.partition}: "
                f"{exc.diag.message_primary} ({exc.diag.context})",
                expected="values that fit the projection's columns",
                next_step="correct the projection, then run the same command again",
            ) from exc
        except psycopg.errors.IntegrityError as exc:
            raise _integrity(exc, part) from exc

    def _advance(self, conn: Connection, target: Target, part: Slice, rows: int) -> bool:
        """Move the position from start to end; False where another worker already has."""
        moved = conn.execute(
            """UPDATE migrator.position
               SET next_offset = %(end)s, events = %(events)s, rows = %(rows)s,
                   changed_at = clock_timestamp()
               WHERE build = %(build)s AND topic = %(topic)s AND partition = %(partition)s
                 AND next_offset = %(start)s AND end_offset = %(end)s""",
            {
                "build": target.build,
                "topic": self.task.topic,
                "partition": part.partition,
                "start": part.start,
                "end": part.end,
                "events": self.events[part.partition],
                "rows": rows,
            },
        )
        return moved.rowcount == 1


def _write(conn: Connection, target: Target, fold: Fold) -> None:
    table = fold.definition.table
    columns = list(zip(fold.definition.attributes, table.columns, strict=True))
    line = line_formatter([(attribute, column.type) for attribute, column in columns])
    copy_rows(
        conn,
        sql.Identifier(target.schema, table.name),
        [column.name for _, column in columns],
        map(line, fold.rows.values()),
    )


def _meta(record: Message, key: str | None, envelope: Envelope) -> Meta:
    _, timestamp = record.timestamp()
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Meta(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=envelope.time or datetime.fromtimestamp(timestamp / 1000, UTC),
        type=envelope.type,
        key=key,
        id=envelope.id,
    )


def _named(exc: Exception, record: Message) -> MigratorError:
    """The same trouble, with the place in the log where it lies."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    raw_key = record.key()
    key = raw_key.decode("utf-8", "replace") if isinstance(raw_key, bytes) else raw_key
    place = f"topic {topic}, partition {partition}, offset {offset}, key {key!r}"
    data: dict[str, Any] = {"topic": topic, "partition": partition, "offset": offset, "key": key}
    match exc:
        case MigratorError():
            return exc
        case Unhandled():
            return Refused(
                f"{exc.projection} has no handler for {exc.event_type!r} ({place})",
                expected="a method with @on, or the type in ignores",
                next_step=f'add @on(...) to the projection, or ignores = ("{exc.event_type}",)',
                event_type=exc.event_type,
                projection=exc.projection,
                **data,
            )
        case (
            NoEnvelope() | msgspec.ValidationError() | msgspec.DecodeError() | UnicodeDecodeError()
        ):
            found, step = (
                f"an event does not decode: {exc} ({place})",
                ("correct the event class or [topics] in migrator.toml"),
            )
        case NoKey():
            found, step = f"{exc} ({place})", "correct the projection's key"
        case _:
            found = f"a handler failed: {type(exc).__name__}: {exc} ({place})"
            step = "correct the handler"
    return MigratorError(
        found, next_step=f"{step}, then run the same command again; live is untouched", **data
    )


def _integrity(exc: psycopg.errors.IntegrityError, part: Slice) -> Refused:
    said = exc.diag
    return Refused(
        f"a row of partition {part.partition} has no value for {said.table_name}.{said.column_name}"
        if isinstance(exc, psycopg.errors.NotNullViolation)
        else f"PostgreSQL does not take a row of partition {part.partition}: {said.message_primary}",
        expected="every handler that makes a row to fill its NOT NULL columns",
        next_step="give the column a default or make it nullable (Mapped[... | None]), "
        "then run the same command again",
        detail=said.message_detail,
    )
