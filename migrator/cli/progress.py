"""Show a rebuild as it goes, on stderr: bars with rate and time left, or plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from migrator.projections.quarantine import Quarantined
    from migrator.projections.rebuild import Listener, Step
    from migrator.projections.replay import Progress

PLAIN_EVERY_S = 5.0


@contextmanager
def replay_progress() -> Iterator[Listener]:
    """Give the listener that a rebuild reports to."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with _bars(console) as bars:
            yield _Terminal(bars).heard
    else:
        yield _Plain().heard


@dataclass
class _Totals:
    """How far the replay is, over all partitions."""

    began: float = field(default_factory=time.monotonic)
    first: dict[tuple[str, int], int] = field(default_factory=dict)
    now: dict[tuple[str, int], Progress] = field(default_factory=dict)

    def add(self, progress: Progress) -> None:
        place = progress.topic, progress.partition
        self.first.setdefault(place, progress.next_offset - progress.events)
        self.now[place] = progress

    @property
    def read(self) -> int:
        return sum(p.next_offset - self.first[place] for place, p in self.now.items())

    @property
    def total(self) -> int:
        return sum(p.end_offset - self.first[place] for place, p in self.now.items())

    @property
    def rate(self) -> float:
        return self.read / max(time.monotonic() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float:
        return (self.total - self.read) / max(self.rate, 1e-9)


def quarantined_line(said: Quarantined) -> str:
    return (
        f"quarantine: {said.projection} goes without partition {said.partition}, "
        f"offset {said.offset}, key {said.key!r}: {said.error}"
    )


class _Plain:
    """A line a step, and one every few seconds while replaying."""

    def __init__(self) -> None:
        self._totals = _Totals()
        self._next_line = time.monotonic() + PLAIN_EVERY_S

    def heard(self, said: Step | Progress | Quarantined) -> None:
        from migrator.projections.quarantine import Quarantined
        from migrator.projections.rebuild import Step

        if isinstance(said, Step):
            click.echo(f"{said.step}: {said.detail}", err=True)
            self._totals = _Totals()
            return
        if isinstance(said, Quarantined):
            click.echo(quarantined_line(said), err=True)
            return
        self._totals.add(said)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_EVERY_S
            totals = self._totals
            click.echo(
                f"replay: {totals.read:,} of {totals.total:,} events, "
                f"{totals.rate:,.0f} events/s, {totals.seconds_left:.0f} s left",
                err=True,
            )


class _Terminal:
    """One bar a partition, as they appear."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, int], TaskID] = {}

    def heard(self, said: Step | Progress | Quarantined) -> None:
        from migrator.projections.quarantine import Quarantined
        from migrator.projections.rebuild import Step

        if isinstance(said, Step):
            self._bars.console.print(f"{said.step}: {said.detail}")
            return
        if isinstance(said, Quarantined):
            self._bars.console.print(quarantined_line(said), markup=False)
            return
        place = said.topic, said.partition
        start = said.next_offset - said.events
        if place not in self._tasks:
            self._tasks[place] = self._bars.add_task(f"{said.topic} {said.partition}", total=None)
        self._bars.update(
            self._tasks[place],
            total=max(said.end_offset - start, 1),
            completed=max(said.next_offset - start, 1 if said.committed else 0),
        )


def _bars(console: Console) -> Bars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} events/s" if task.speed else "")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
    )
