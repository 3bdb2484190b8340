"""What `up` would do: which revisions are pending, applied and unknown. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from migrator.errors import Refused, UsageError
from migrator.migrations.applied import Applied
from migrator.migrations.revision import Phase, Revision

if TYPE_CHECKING:
    from migrator.migrations.history import History


class Chain(Protocol):
    """The files' revisions: a History, or the Outline of one."""

    @property
    def directory(self) -> Path: ...
    def __contains__(self, revision: str) -> bool: ...
    def ancestry(self, *revisions: str) -> frozenset[str]: ...


@dataclass(frozen=True)
class Plan:
    """The revisions by their state, and those that this run applies, oldest first."""

    heads: tuple[str, ...]
    applied: tuple[Revision, ...]
    without_entry: tuple[str, ...]
    unknown: tuple[str, ...]
    pending: tuple[Revision, ...]
    asked: tuple[Revision, ...]
    todo: tuple[Revision, ...]
    stopped_before: Revision | None

    @property
    def version(self) -> str | None:
        """The database's revision now."""
        return ", ".join(self.heads) or None

    @property
    def target(self) -> str | None:
        """The database's revision once the plan is carried out."""
        return ", ".join(self.heads_after) or None

    @property
    def heads_after(self) -> tuple[str, ...]:
        """What the version table names then: several, where it stops between branches."""
        heads = set(self.heads)
        for revision in self.todo:
            heads -= {*revision.parents, *revision.requires}
            heads.add(revision.id)
        return tuple(sorted(heads))


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
    held = held_by(history, applied)
    recorded = {entry.subject for entry in applied.standing}
    unknown = unknown_to(history, applied)
    pending = tuple(revision for revision in history.revisions if revision.id not in held)
    if pending and unknown:
        raise _diverged(applied, unknown, pending)
    asked = _until(pending, to, recorded.union(history.ids))
    todo, stopped_before = _prefix(asked, phase)
    return Plan(
        heads=applied.heads,
        applied=tuple(revision for revision in history.revisions if revision.id in held),
        without_entry=tuple(r.id for r in history.revisions if r.id in held - recorded),
        unknown=unknown,
        pending=pending,
        asked=asked,
        todo=todo,
        stopped_before=stopped_before,
    )


def unknown_to(files: Chain, applied: Applied) -> tuple[str, ...]:
    """What the ledger says is applied and no file has, oldest first."""
    return tuple(e.subject for e in applied.standing if e.subject not in files)


def held_by(files: Chain, applied: Applied) -> frozenset[str]:
    """The files' revisions that the database stands on.

    Raises:
        Refused: neither files nor ledger tell what it stands on.
    """
    if not applied.heads:
        return frozenset()
    said = {e.subject for e in applied.standing} | {p for e in applied.standing for p in e.parents}
    known = [name for name in said.union(applied.heads) if name in files]
    strangers = [head for head in applied.heads if head not in said and head not in files]
    whole = bool(applied.standing) and applied.standing[0].revises is None
    _refuse_head_below_head(files, applied)
    if not strangers and (known or whole):
        return files.ancestry(*known)
    raise Refused(
        f"the database is at {applied.version}, which no file in {files.directory} knows",
        expected="a revision of this checkout, or one that the ledger tells the way from",
        next_step="check that the database is the right one; if so, take the checkout that has "
        f"{applied.version}",
        version=applied.version,
    )


def _refuse_head_below_head(files: Chain, applied: Applied) -> None:
    for head in filter(files.__contains__, applied.heads):
        below = files.ancestry(head).intersection(applied.heads) - {head}
        if below:
            raise Refused(
                f"the version table names {len(applied.heads)} heads: {applied.version}; "
                f"but {head} stands on {', '.join(sorted(below))}",
                expected="heads of which none stands on another",
                next_step="find out who changed the table by hand, and delete from it what is not "
                "the database's revision",
                heads=list(applied.heads),
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
        if phase is not None and revision.phase != phase and not revision.exempt:
            return asked[:count], revision
    return asked, None
