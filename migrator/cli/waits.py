"""Say whom a command waits for: another run, a lock, a long transaction, a lost connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrator.migrations.retry import HeldOff, Killed, Retry
    from migrator.migrations.up import Waiting


def lines(step: Waiting | Retry | HeldOff | Killed) -> list[str]:
    """What to print, the blockers one to a line."""
    from migrator.migrations.retry import HeldOff, Killed, Retry

    match step:
        case Retry(revision, attempt, cause, pause_s, blockers, lost):
            met = "lost its connection" if lost else "met a lock"
            said = f"{revision} {met}: {cause}; retry {attempt} in {pause_s:.1f} s"
            return [said, *_each("in the way", blockers)]
        case HeldOff(revision, blockers):
            said = f"{revision} waits before it asks for its locks: who reads would queue behind it"
            return [said, *_each("in the way", blockers)]
        case Killed(revision, ended):
            return _each(f"{revision} --kill-blockers", ended)
    return [f"waiting for another run to end: {step.holder}"]


def _each(what: str, each: Iterable[object]) -> list[str]:
    return [f"  {what}: {one}" for one in each]
