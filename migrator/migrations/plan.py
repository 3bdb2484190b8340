"""What `up` would do: which revisions are pending, applied and unknown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from migrator.errors import Refused, UsageError
from migrator.migrations.applied import Applied
from migrator.migrations.history import History
from migrator.migrations.revision import Phase, Revision


@dataclass(frozen=True)
class Plan:
    """The revisions by their state, and those that this run applies, oldest first."""

    version: str | None
    applied: tuple[Revision, ...]
    without_entry: tuple[str, ...]
    unknown: tuple[str, ...]
    pending: tuple[Revision, ...]
    asked: tuple[Revision, ...]
    todo: tuple[Revision, ...]
    stopped_before: Revision | None

    @property
    def target(self) -> str | None:
        """The database's revision once the plan is carried out."""
        return self.todo[-1].id if self.todo else self.version


def make(
    history: History, applied: Applied, *, to: str | None = None, phase: Phase | None = None
) -> Plan:
    """Compare the files with the database; `to` and `phase` narrow what is done.

    A database ahead of the files is a state: its revisions are unknown, and nothing is pending.
    `phase` takes the pending prefix of that phase and stops before the first of the other one.

    Raises:
        UsageError: `to` is neither in the files nor in the ledger.
        Refused: pending revisions do not stand on what is applied.
    """
    held = _held(history, applied)
    known = {revision.id for revision in history.revisions}
    recorded = {entry.subject for entry in applied.standing}
    unknown = tuple(e.subject for e in applied.standing if e.subject not in known)
    pending = tuple(revision for revision in history.revisions if revision.id not in held)
    if pending and unknown:
        raise _diverged(applied, unknown, pending)
    asked = _until(pending, to, known | recorded)
    todo, stopped_before = _prefix(asked, phase)
    return Plan(
        version=applied.version,
        applied=tuple(revision for revision in history.revisions if revision.id in held),
        without_entry=tuple(r.id for r in history.revisions if r.id in held - recorded),
        unknown=unknown,
        pending=pending,
        asked=asked,
        todo=todo,
        stopped_before=stopped_before,
    )


def _held(history: History, applied: Applied) -> frozenset[str]:
    """The files' revisions that the database stands on."""
    known = {revision.id for revision in history.revisions}
    if applied.version is None:
        return frozenset()
    newest_first = [applied.version, *(entry.subject for entry in reversed(applied.standing))]
    for subject in newest_first:
        if subject in known:
            return history.ancestry(subject)
    if applied.standing and applied.standing[0].revises is None:
        return frozenset()
    base = applied.standing[0].revises if applied.standing else None
    if base in known:
        return history.ancestry(base)
    raise Refused(
        f"the database is at {applied.version}, which no file in {history.directory} knows",
        expected="a revision of this checkout, or one that the ledger tells the way from",
        next_step="check that the database is the right one; if so, take the checkout that has "
        f"{applied.version}",
        version=applied.version,
    )


def _diverged(applied: Applied, unknown: tuple[str, ...], pending: tuple[Revision, ...]) -> Refused:
    ahead, waiting = ", ".join(unknown), ", ".join(revision.id for revision in pending)
    return Refused(
        f"the database holds {ahead}, which this checkout has no file for, "
        f"and {waiting} is pending beside it",
        expected=f"pending revisions that stand on {applied.version}, where the database is",
        next_step=f"merge the branch that has {ahead} and let {pending[0].id} revise "
        f"{applied.version}; or undo {ahead} with migrator rollback",
        unknown=list(unknown),
        pending=[revision.id for revision in pending],
    )


def _until(pending: tuple[Revision, ...], to: str | None, known: set[str]) -> tuple[Revision, ...]:
    if to is None:
        return pending
    if to not in known:
        raise UsageError.unknown("revision", to, known, next_step="migrator up --dry-run")
    ids = [revision.id for revision in pending]
    return pending[: ids.index(to) + 1] if to in ids else ()


def _prefix(
    asked: tuple[Revision, ...], phase: Phase | None
) -> tuple[tuple[Revision, ...], Revision | None]:
    for count, revision in enumerate(asked):
        if phase is not None and revision.phase != phase:
            return asked[:count], revision
    return asked, None
