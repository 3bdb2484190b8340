"""The `up` command's work: plan, take the deployer lock, apply, and read back what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from migrator.errors import MigratorError, Refused
from migrator.migrations import (
    applied,
    backfill,
    check,
    failure,
    history,
    keyset,
    plan,
    render,
    session,
)
from migrator.migrations.apply import Done, Run, apply
from migrator.migrations.history import History
from migrator.migrations.pages import Filling
from migrator.migrations.plan import Plan
from migrator.migrations.retry import Patience, Retry
from migrator.migrations.revision import Phase, Revision
from migrator.postgres.connect import connect
from migrator.postgres.locks import Fence, deployer_lock
from migrator.settings import Settings

LOCK = "deploy"


@dataclass(frozen=True)
class Waiting:
    """Another run holds the deployer lock."""

    holder: str


@dataclass(frozen=True)
class Started:
    """A revision begins."""

    revision: Revision
    number: int
    total: int


Progress = Callable[[Waiting | Started | Retry | Filling | Done], None]


@dataclass(frozen=True)
class Outcome:
    """What one `up` has done, and what it left pending."""

    run: UUID
    applied: tuple[Done, ...]
    version: str | None
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    stopped_before: Revision | None


@dataclass(frozen=True)
class Preview:
    """A revision that `up` would apply, with its SQL, or why that cannot be shown."""

    revision: Revision
    sql: str | None
    why_not: str | None


def up(
    settings: Settings,
    *,
    to: str | None = None,
    phase: Phase | None = None,
    progress: Progress = lambda _step: None,
) -> Outcome:
    """Apply the pending revisions, each atomically, one runner at a time.

    With nothing to do, it takes no lock and writes nothing. After a failure the revisions before
    the failed one stay applied, and the same command goes on from there.

    Raises:
        UsageError: no such folder or revision.
        Refused: the files, or files and database, do not fit together; nothing was applied.
        Busy: another run, or locks on the tables, lasted until the deadline.
        MigratorError: a revision failed.
    """
    files = history.read(settings)
    found = survey(settings, files, to=to, phase=phase)
    run = uuid4()
    done: tuple[Done, ...] = ()
    if found.todo:
        with deployer_lock(
            settings, LOCK, waiting=lambda holder: progress(Waiting(holder))
        ) as fence:
            # Another runner may have applied them while this one waited.
            found = survey(settings, files, to=to, phase=phase)
            done = carry_out(settings, files, found, fence=fence, run=run, progress=progress)
    left = tuple(r.id for r in found.pending if r not in found.todo)
    return Outcome(run, done, found.target, left, found.unknown, found.stopped_before)


def survey(
    settings: Settings, files: History, *, to: str | None = None, phase: Phase | None = None
) -> Plan:
    """Read the database's state and plan; checks every revision asked for. Read-only, no lock.

    Raises:
        UsageError, Refused: as `up`.
    """
    with connect(settings, "plan") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        state = applied.read(conn, settings.migrations.version_table)
    found = plan.make(files, state, to=to, phase=phase)
    check.refuse_incomplete(files, found.asked)
    return found


def carry_out(
    settings: Settings,
    files: History,
    found: Plan,
    *,
    fence: Fence,
    run: UUID,
    progress: Progress,
) -> tuple[Done, ...]:
    """Apply what the plan says, under a lock that the caller holds; verify it on a new session.

    Raises:
        Busy, MigratorError: as `up`.
    """
    if not found.todo:
        return ()
    work = Run(run, settings, files, fence, Patience(settings.database.deadline_s), progress)
    done: list[Done] = []
    with session.opened(settings, "up") as connection:
        for number, revision in enumerate(found.todo, 1):
            progress(Started(revision, number, len(found.todo)))
            try:
                done.append(apply(work, connection, revision))
            except Exception as exc:
                raise failure.explain(exc, revision, [one.revision for one in done]) from exc
            progress(done[-1])
    _confirm(settings, found.target)
    return tuple(done)


def preview(
    settings: Settings, *, to: str | None = None, phase: Phase | None = None
) -> tuple[Plan, tuple[Preview, ...]]:
    """Plan as `up` would, and render the SQL offline; no lock, nothing written.

    Raises:
        UsageError, Refused: as `up`.
    """
    files = history.read(settings)
    found = survey(settings, files, to=to, phase=phase)
    return found, tuple(_previewed(settings, files, revision) for revision in found.todo)


def _previewed(settings: Settings, files: History, revision: Revision) -> Preview:
    if revision.backfills:
        return _previewed_backfill(settings, files, revision)
    try:
        return Preview(revision, render.render(files, revision), None)
    except render.NotRenderable as exc:
        return Preview(revision, None, str(exc))


def _previewed_backfill(settings: Settings, files: History, revision: Revision) -> Preview:
    """Show the first page, from the table as it is; read-only."""
    declared = backfill.of(files, revision)
    with connect(settings, "plan") as conn:
        conn.read_only = True
        try:
            page, rows = keyset.first_page(conn, declared)
        except Refused:  # the table, or its key, may come with a revision that is pending too
            return Preview(revision, f"-- the table is not there yet\n{declared.shown()};", None)
    about = "not known before ANALYZE" if rows is None else f"about {rows:,}"
    said = f"-- rows: {about}; first page, of {declared.batch:,} rows, then on to the last key:"
    return Preview(revision, f"{said}\n{page};", None)


def _confirm(settings: Settings, expected: str | None) -> None:
    """Read the revision back on a new session: Alembic can report success and commit nothing."""
    with connect(settings, "confirm", autocommit=True) as conn:
        version = applied.version(conn, settings.migrations.version_table)
    if version != expected:
        raise MigratorError(
            f"the database is at {version} after the run",
            expected=f"{expected}, which the run has applied",
            next_step="look at migrator history: somebody else changes this database",
            version=version,
        )
