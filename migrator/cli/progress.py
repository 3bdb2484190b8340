"""Show a rebuild as it goes, on stderr: bars with rate and time left, plain lines, or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from migrator.projections.progress import Reach
    from migrator.projections.quarantine import Quarantined
    from migrator.projections.rebuild import Listener, Step
    from migrator.projections.replay import Progress

    Said = Step | Progress | Quarantined

EVERY_S = 5.0


@contextmanager
def replay_progress(*, as_json: bool = False) -> Iterator[Listener]:
    """Give the listener that a rebuild reports to; with `as_json`, the error that ends it, too."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if as_json:
        with _errors_told():
            yield _Lines().heard
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _Terminal(bars).heard
    else:
        yield _Plain().heard


class _Periodic:
    """Hears everything, and tells how far the replay is once in a while."""

    def __init__(self) -> None:
        from migrator.projections.progress import Tracker

        self._tracker = Tracker()
        self._next_line = time.monotonic() + EVERY_S

    def heard(self, said: Said) -> None:
        from migrator.projections.progress import Tracker
        from migrator.projections.quarantine import Quarantined
        from migrator.projections.rebuild import Step

        if isinstance(said, Step):
            self.step(said)
            self._tracker = Tracker()
        elif isinstance(said, Quarantined):
            self.quarantined(said)
        else:
            self._tracker.add(said)
            if said.committed:
                self.committed(next(r for r in self._tracker.reaches() if _is_of(r, said)))
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + EVERY_S
                self.progress(self._tracker.whole(), self._tracker.reaches())

    def step(self, said: Step) -> None:
        raise NotImplementedError

    def quarantined(self, said: Quarantined) -> None:
        raise NotImplementedError

    def committed(self, reach: Reach) -> None:
        raise NotImplementedError

    def progress(self, whole: Reach, each: list[Reach]) -> None:
        raise NotImplementedError


class _Plain(_Periodic):
    """A line a step, and every few seconds one for the whole and one for each partition at work."""

    def step(self, said: Step) -> None:
        click.echo(f"{said.step}: {said.detail}", err=True)

    def quarantined(self, said: Quarantined) -> None:
        click.echo(quarantined_line(said), err=True)

    def committed(self, reach: Reach) -> None:
        pass

    def progress(self, whole: Reach, each: list[Reach]) -> None:
        click.echo(f"replay: {_how_far(whole)}", err=True)
        for reach in each:
            if reach.news_age_s is not None and not reach.is_committed:
                click.echo(f"  partition {reach.partition}: {_how_far(reach)}", err=True)


class _Lines(_Periodic):
    """A JSON object a line: `event` is step, progress, committed, quarantined or error."""

    def step(self, said: Step) -> None:
        _line("step", step=said.step, detail=said.detail)

    def quarantined(self, said: Quarantined) -> None:
        _line("quarantined", **vars(said))

    def committed(self, reach: Reach) -> None:
        _line("committed", **_numbers(reach))

    def progress(self, whole: Reach, each: list[Reach]) -> None:
        total = _numbers(whole)
        del total["partition"], total["next_offset"], total["end_offset"]
        _line("progress", **total, partitions=[_numbers(reach) for reach in each])


class _Terminal:
    """One bar a partition, from the beginning."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._starts: dict[tuple[str, int], int] = {}

    def heard(self, said: Said) -> None:
        from migrator.projections.quarantine import Quarantined
        from migrator.projections.rebuild import Step

        if isinstance(said, Step):
            self._bars.console.print(f"{said.step}: {said.detail}")
            return
        if isinstance(said, Quarantined):
            self._bars.console.print(quarantined_line(said), markup=False)
            return
        place = said.topic, said.partition
        start = self._starts.setdefault(place, said.next_offset - said.events)
        if place not in self._tasks:
            self._tasks[place] = self._bars.add_task(f"{said.topic} {said.partition}", total=None)
        self._bars.update(
            self._tasks[place],
            total=max(said.end_offset - start, 1),
            completed=max(said.next_offset - start, 1 if said.committed else 0),
        )


def quarantined_line(said: Quarantined) -> str:
    return (
        f"quarantine: {said.projection} goes without partition {said.partition}, "
        f"offset {said.offset}, key {said.key!r}: {printable(said.error)}"
    )


def printable(text: str) -> str:
    """The text, or an ASCII form of it where a terminal would act on it."""
    return text if text.isprintable() else ascii(text)


def time_left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"{seconds:,.0f} s left"


def _how_far(reach: Reach) -> str:
    rate = "rate unknown" if reach.events_per_s is None else f"{reach.events_per_s:,.0f} events/s"
    left = time_left(reach.seconds_left)
    return f"{reach.read:,} of {reach.total:,} events, {rate}, {left}"


def _is_of(reach: Reach, said: Progress) -> bool:
    return (reach.topic, reach.partition) == (said.topic, said.partition)


def _numbers(reach: Reach) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in vars(reach).items()
    }


@contextmanager
def _errors_told() -> Iterator[None]:
    from migrator.errors import MigratorError

    try:
        yield
    except MigratorError as exc:
        _line("error", **exc.as_json())
        raise


def _line(event: str, **fields: Any) -> None:
    said = {"event": event, "timestamp": datetime.now(UTC).isoformat(), **fields}
    click.echo(json.dumps(said, default=str), err=True)


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
