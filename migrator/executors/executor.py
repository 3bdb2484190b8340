"""What an executor is, and which one the settings ask for; nothing else knows which it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from migrator.errors import MigratorError

if TYPE_CHECKING:
    from migrator.settings import Settings

Task = TypeVar("Task")
Report = Callable[[Any], None]
Function = Callable[[Task, Report], None]
Renew = Callable[[Task], Task | None]


class Executor(Protocol):
    """Runs one function over several tasks, each in a process of its own."""

    def run(
        self,
        function: Function[Task],
        tasks: Sequence[Task],
        on_report: Report,
        renew: Renew[Task],
    ) -> None:
        """Call `function(task, report)` once a task, all at once; `on_report` hears every report.

        An executor that tries a lost worker's task again asks `renew` for what is left of it; None
        is nothing. The process that was lost may still be running: the function must bear that.

        Raises:
            MigratorError: the first error of any worker, or that one was lost; the others are ended.
        """


def chosen(settings: Settings) -> Executor:
    """The executor of `[projections] executor`.

    Raises:
        UsageError: what it needs is not installed.
    """
    if settings.projections.executor == "ray":
        from migrator.executors.ray import RayExecutor

        return RayExecutor(
            settings.ray,
            folder=settings.projections_dir,
            memory_bytes=settings.projections.memory_mb * 1_000_000,
        )
    from migrator.executors import local

    return local


def failure(function: Function[Task], task: Task, report: Report) -> MigratorError | None:
    """Call it, and give what went wrong in a form that reaches the parent whole."""
    try:
        function(task, report)
    except MigratorError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - a worker's bug must reach the parent, whatever it is
        return MigratorError(
            f"a worker failed: {type(exc).__name__}: {exc}", traceback=traceback.format_exc()
        )
    return None
