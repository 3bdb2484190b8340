"""Replay some partitions of a topic, or of several that are merged, into the shadow tables of one or more builds: a worker's work.

Rows and next_offset commit together: at a partition's end, or before, when memory is full.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message

from migrator.errors import UsageError
from migrator.executors.places import here
from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Part, Slice, read_together
from migrator.postgres.connect import Connection, connect
from migrator.projections import quarantine, registry
from migrator.projections.definition import Definition
from migrator.projections.memory import Memory
from migrator.projections.partition import Full, NeedsCare, PartitionFold
from migrator.projections.quarantine import Quarantined
from migrator.projections.store import PartitionStore, Target
from migrator.settings import Settings


@dataclass(frozen=True)
class Task:
    """Whole partitions of `topics`, by name and id, and the builds each of them is folded into."""

    settings: Settings
    directory: Path
    topics: dict[str, str | None]
    targets: dict[Part, tuple[Target, ...]]
    memory_bytes: int
    limits: Limits = field(default_factory=Limits)
    quarantine: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a worker has read one partition."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    events: int
    committed: bool = False


Report = Callable[[Progress | Quarantined], None]


def replay(task: Task, report: Report) -> None:
    """Read, fold and commit the task's partitions one after the other.

    Raises:
        MigratorError: a record cannot be read, decoded or folded; it names where it lies.
        Refused: an event type that no handler takes, or a row that the table does not take.
    """
    definitions = _definitions(task)
    names = ", ".join(sorted(definitions))
    with (
        _without_collector(),
        connect(task.settings, f"replay {names}", autocommit=True, statement_timeout_ms=0) as conn,
    ):
        worker = _Worker(task, definitions, conn, _memory(task), report)
        for part, batches in _read(task, list(task.targets)):
            targets = task.targets[part]
            left = worker.fold(part, targets, batches)
            if left is not None:
                for again, rest in _read(task, [left]):
                    worker.fold(again, targets, rest, careful=True)


def _memory(task: Task) -> Memory:
    # All readers but the one that is folded are full at any time.
    reading = task.limits.prefetch_kib * 1024
    return Memory(task.memory_bytes, min(reading, task.memory_bytes // 2))


def _read(task: Task, parts: list[Part]) -> Iterator[tuple[Part, Iterator[list[Message]]]]:
    kafka = quiet(task.settings.kafka_config)
    return read_together(kafka, task.topics, parts, limits=task.limits)


@dataclass(frozen=True)
class _Worker:
    task: Task
    definitions: dict[str, Definition]
    conn: Connection
    memory: Memory
    report: Report

    def fold(
        self,
        part: Part,
        targets: tuple[Target, ...],
        batches: Iterable[list[Message]],
        *,
        careful: bool = False,
    ) -> Part | None:
        """Fold and commit a partition; returns what of it is to be read again, carefully."""
        limit, topics = self.task.quarantine, list(self.task.topics)
        fold = PartitionFold(
            {topic: self.task.settings.topic(topic) for topic in topics},
            [self.definitions[t.projection] for t in targets],
            room=[quarantine.room(self.conn, t.build, limit) for t in targets] if limit else None,
            careful=careful,
        )
        store = PartitionStore(self.conn, topics, part, targets, fold, limit=limit)
        try:
            self._fold(part, batches, fold, store)
        except NeedsCare:
            return store.left
        except Full as exc:
            raise quarantine.too_many(exc.stopped, limit, exc.before) from exc.stopped.__cause__
        finally:
            fold.forget()
        return None

    def _fold(
        self,
        part: Part,
        batches: Iterable[list[Message]],
        fold: PartitionFold,
        store: PartitionStore,
    ) -> None:
        ends = dict(zip(self.task.topics, part, strict=True))
        for records in batches:
            fold.apply(records)
            for topic, offset in fold.reached.items():
                self.report(_progress(topic, ends[topic], offset, fold.events[topic]))
            if self.memory.is_full(fold.rows):
                store.spill()
                self._tell(store)
        store.finish()
        self._tell(store)
        for topic, each in ends.items():
            self.report(_progress(topic, each, each.end, fold.events[topic], committed=True))

    def _tell(self, store: PartitionStore) -> None:
        for each in store.taken():
            self.report(each)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rows hold no cycles, and the garbage collector would walk all of them again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _definitions(task: Task) -> dict[str, Definition]:
    known = registry.load(here(task.directory))
    targets = {target for each in task.targets.values() for target in each}
    for target in targets:
        if known[target.projection].hash != target.definition_hash:
            raise UsageError(
                f"{target.projection} was edited while it was being rebuilt",
                next_step="run the same command again",
            )
    return {target.projection: known[target.projection].definition for target in targets}


def _progress(
    topic: str, part: Slice, offset: int, events: int, *, committed: bool = False
) -> Progress:
    return Progress(topic, part.partition, offset, part.end, events, committed)
