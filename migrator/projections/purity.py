"""Fold a sample twice: handlers that are pure make the same rows of the same events.

A handler that asks a clock, chance, or a variable that outlives the fold gives itself away. What is the
same within one process and some milliseconds (today's date, hash()) does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from migrator.projections.definition import Definition
from migrator.projections.events import shown_key
from migrator.projections.fold import Fold
from migrator.projections.partition import PartitionFold
from migrator.projections.sampled import Sample
from migrator.projections.verdict import Judged, passed


@dataclass(frozen=True)
class Twice:
    """A verdict, and what the first of the folds made; `held` are the offsets of what did not fold."""

    judged: Judged
    fold: Fold | None = None
    held: frozenset[tuple[str, int]] = frozenset()


def fold_twice(sample: Sample | None, definition: Definition) -> Twice:
    """Fold a sample twice, in memory, and compare the rows.

    Raises:
        MigratorError: an event cannot be folded, for a reason that no quarantine takes.
    """
    if sample is None:
        return Twice(Judged("skipped", "there is no event"))
    (once, held), (again, held_again) = _folded(sample, definition), _folded(sample, definition)
    found = next(_differences(once, again), None)
    if found is None and held != held_again:
        topic, offset = min(held ^ held_again)
        found = f"the event at offset {offset} of topic {topic} folded once, and once it did not"
    if found is not None:
        said = f"{found}: a handler must make the same row of the same events, whenever it runs"
        return Twice(passed(False, said, events=len(sample.records)), once, held)
    return Twice(passed(True, sample.told, events=len(sample.records)), once, held)


def _folded(sample: Sample, definition: Definition) -> tuple[Fold, frozenset[tuple[str, int]]]:
    partition = PartitionFold(sample.topics, [definition], room=[len(sample.records)], careful=True)
    partition.apply(sample.records)
    return partition.folds[0], frozenset((p.topic, p.offset) for p in partition.held[0])


def _differences(once: Fold, again: Fold) -> Iterator[str]:
    for key in [*once.rows, *(key for key in again.rows if key not in once.rows)]:
        rows = once.rows.get(key), again.rows.get(key)
        if None in rows:
            yield f"key {_shown(key)} has a row in one of two folds"
            continue
        for name in once.definition.attributes:
            first, second = (getattr(row, name) for row in rows)
            if not _is_same(first, second):
                yield f"{name} of key {_shown(key)} was {first!r}, and then {second!r}"


def _is_same(first: Any, second: Any) -> bool:
    return bool(first == second) or repr(first) == repr(second)  # NaN is not equal to itself


def _shown(key: Hashable) -> str:
    return repr(shown_key(key))
