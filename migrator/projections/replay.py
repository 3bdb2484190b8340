"""Replay some partitions of a topic into the shadow tables of one or more builds: a worker's work.

Rows and next_offset commit together: at a partition's end, or before, when memory is full.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from migrator.errors import UsageError
from migrator.kafka.client import quiet
from migrator.kafka.log import Limits, Slice, read_in_turn
from migrator.postgres.connect import connect
from migrator.projections import registry
from migrator.projections.definition import Definition
from migrator.projections.memory import Memory
from migrator.projections.partition import PartitionFold
from migrator.projections.store import PartitionStore, Target
from migrator.settings import Settings


@dataclass(frozen=True)
class Task:
    """Whole partitions of one topic, and the builds each of them is folded into."""

    settings: Settings
    directory: Path
    topic: str
    targets: dict[Slice, tuple[Target, ...]]
    memory_bytes: int
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
    memory = Memory(task.memory_bytes)
    with (
        _without_collector(),
        connect(task.settings, f"replay {names}", autocommit=True, statement_timeout_ms=0) as conn,
    ):
        for part, batches in read_in_turn(
            kafka, task.topic, list(task.targets), limits=task.limits, topic_id=task.topic_id
        ):
            targets = task.targets[part]
            fold = PartitionFold(
                task.settings.topic(task.topic), [definitions[t.projection] for t in targets]
            )
            store = PartitionStore(conn, task.topic, part, targets, fold)
            for records in batches:
                fold.apply(records)
                reached = (records[-1].offset() or 0) + 1
                report(_progress(task, part, reached, fold.events))
                if memory.is_full(fold.rows):
                    store.spill(reached)
            store.finish()
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
