"""Replay some partitions of a topic into the shadow tables of one or more builds: a worker's work.

A partition's rows and its next_offset commit in one transaction, for all builds of the pass at once.
A partition that a lost worker had not committed has left nothing behind.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from migrator.errors import Refused, UsageError
from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Slice, read_in_turn
from migrator.postgres.connect import Connection, connect
from migrator.postgres.copy import copy_rows
from migrator.projections import registry
from migrator.projections.definition import Definition
from migrator.projections.fold import Fold
from migrator.projections.partition import PartitionFold
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
    limits: Limits = field(default_factory=Limits)
    topic_id: str | None = None


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
    """Read, fold and commit the task's partitions one after the other.

    Raises:
        MigratorError: a record cannot be read, decoded or folded; it names where it lies.
        Refused: an event type that no handler takes, or a row that the table does not take.
    """
    definitions = _definitions(task)
    names = ", ".join(sorted(definitions))
    kafka = quiet(task.settings.kafka_config)
    with (
        _without_collector(),
        connect(task.settings, f"replay {names}", statement_timeout_ms=0) as conn,
    ):
        for part, batches in read_in_turn(
            kafka, task.topic, task.slices, limits=task.limits, topic_id=task.topic_id
        ):
            targets = task.targets[part.partition]
            fold = PartitionFold(
                task.settings.topic(task.topic), [definitions[t.projection] for t in targets]
            )
            for records in batches:
                fold.apply(records)
                reached = records[-1].offset() or 0
                report(_progress(task, part, reached + 1, fold.events))
            commit(conn, task.topic, part, targets, fold)
            report(_progress(task, part, part.end, fold.events, committed=True))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rows hold no cycles, and the garbage collector would walk all of them again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _definitions(task: Task) -> dict[str, Definition]:
    known = registry.load(task.directory)
    targets = {target for each in task.targets.values() for target in each}
    for target in targets:
        if known[target.projection].hash != target.definition_hash:
            raise UsageError(
                f"{target.projection} was edited while it was being rebuilt",
                next_step="run the same command again",
            )
    return {target.projection: known[target.projection].definition for target in targets}


def _progress(
    task: Task, part: Slice, offset: int, events: int, *, committed: bool = False
) -> Progress:
    return Progress(task.topic, part.partition, offset, part.end, events, committed)


def commit(
    conn: Connection,
    topic: str,
    part: Slice,
    targets: Sequence[Target],
    partition: PartitionFold,
) -> None:
    """Write one partition's rows and its position, for every build, in one transaction.

    A partition that another worker has committed meanwhile is left as it is.

    Raises:
        Refused: PostgreSQL does not take a row; nothing of the partition is written.
    """
    try:
        with conn.transaction():
            for target, fold in zip(targets, partition.folds, strict=True):
                if _advance(conn, topic, part, target, partition.events, len(fold.rows)):
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


def _advance(
    conn: Connection, topic: str, part: Slice, target: Target, events: int, rows: int
) -> bool:
    """Move the position from start to end; False where another worker already has."""
    moved = conn.execute(
        """UPDATE migrator.position
           SET next_offset = %(end)s, events = %(events)s, rows = %(rows)s,
               changed_at = clock_timestamp()
           WHERE build = %(build)s AND topic = %(topic)s AND partition = %(partition)s
             AND next_offset = %(start)s AND end_offset = %(end)s""",
        {
            "build": target.build,
            "topic": topic,
            "partition": part.partition,
            "start": part.start,
            "end": part.end,
            "events": events,
            "rows": rows,
        },
    )
    return moved.rowcount == 1


def _write(conn: Connection, target: Target, fold: Fold) -> None:
    table = fold.definition.table
    copy_rows(
        conn,
        sql.Identifier(target.schema, table.name),
        table.columns.keys(),
        fold.definition.columns,
        fold.rows.values(),
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
