"""The `up` command's work: plan, take the deployer lock, apply, and read back what was done."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid4

from migrator import logs
from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import applied, outline, plan
from migrator.migrations.applied import Applied
from migrator.migrations.plan import Plan
from migrator.migrations.revision import Phase, Revision
from migrator.postgres.connect import connect
from migrator.postgres.locks import Fence, deployer_lock
from migrator.settings import Settings

# Alembic and SQLAlchemy load in the functions that need them: a run with nothing to do needs neither.
if TYPE_CHECKING:
    from migrator.migrations.apply import Done
    from migrator.migrations.history import History
    from migrator.migrations.lookout import Lookout
    from migrator.migrations.pages import Filling
    from migrator.migrations.phase_check import Permits, Warned
    from migrator.migrations.pieces import Resumed
    from migrator.migrations.retry import HeldOff, Killed, Retry

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


Progress: TypeAlias = "Callable[[Waiting | Started | Resumed | Retry | HeldOff | Killed | Filling | Warned | Done], None]"


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
    notes: tuple[str, ...] = ()


def up(
    settings: Settings,
    *,
    to: str | None = None,
    phase: Phase | None = None,
    allow: Collection[str] = (),
    kill_blockers: bool = False,
    reason: str | None = None,
    run: UUID | None = None,
    fence: Fence | None = None,
    progress: Progress = lambda _step: None,
) -> Outcome:
    """Apply the pending revisions, each atomically, one runner at a time.

    With nothing to do, it takes no lock and writes nothing. After a failure the revisions before
    the failed one stay applied, and the same command goes on from there. `kill_blockers` ends the
    sessions that are long in the way, for a reason that the ledger keeps. A caller that holds the
    deployer lock already gives its `fence`; `run` is what the ledger's entries carry.

    Raises:
        UsageError: no such folder, revision or rule, or no reason to allow or kill for.
        Refused: the files, or files and database, do not fit together; an expand revision would
            break the running release, or the old one is connected and contract revisions are due.
        Busy: another run, or locks on the tables, lasted until the deadline.
        MigratorError: a revision failed.
    """
    if kill_blockers and not (reason or "").strip():
        raise UsageError("to kill blockers needs a reason", expected='--reason "why"')
    run = run or uuid4()
    if allow:
        from migrator.migrations import phase_check

        phase_check.refuse_bad_flags(allow, reason)
    state = None
    if to is None and (outlined := outline.read(settings)):
        state = _state(settings)
        if plan.held_by(outlined, state).issuperset(outlined.ids):
            unknown = plan.unknown_to(outlined, state)
            return Outcome(run, (), state.version, (), unknown, None)
    from migrator.migrations import check, history, phase_check

    files = history.read(settings)
    found = plan.make(files, state or _state(settings), to=to, phase=phase)
    check.refuse_incomplete(files, found.asked)
    permits = phase_check.prove(settings, files, found, allow=allow, reason=reason, warn=progress)
    permits.glance(found.todo)
    done: tuple[Done, ...] = ()
    if found.todo:
        taken = (
            nullcontext(fence)
            if fence
            else deployer_lock(settings, LOCK, waiting=lambda holder: progress(Waiting(holder)))
        )
        with taken as held:
            # Another runner may have applied them while this one waited: then less is asked for.
            found = survey(settings, files, to=to, phase=phase)
            done = carry_out(
                settings,
                files,
                found,
                fence=held,
                run=run,
                permits=permits,
                kill_blockers=kill_blockers,
                reason=reason,
                progress=progress,
            )
    left = tuple(r.id for r in found.pending[len(found.todo) :])
    return Outcome(run, done, found.target, left, found.unknown, found.stopped_before)


def survey(
    settings: Settings, files: History, *, to: str | None = None, phase: Phase | None = None
) -> Plan:
    """Read the database's state and plan. Read-only, no lock.

    Raises:
        UsageError, Refused: as `up`.
    """
    return plan.make(files, _state(settings), to=to, phase=phase)


def _state(settings: Settings) -> Applied:
    with connect(settings, "plan") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return applied.read(conn, settings.migrations)


def carry_out(
    settings: Settings,
    files: History,
    found: Plan,
    *,
    fence: Fence,
    run: UUID,
    permits: Permits,
    kill_blockers: bool = False,
    reason: str | None = None,
    progress: Progress,
    watched_by: Lookout | None = None,
) -> tuple[Done, ...]:
    """Apply what the plan says, under a lock that the caller holds; verify it on a new session.

    `watched_by` is closed here; without one, a new one looks out.

    Raises:
        Busy, MigratorError: as `up`.
    """
    if not found.todo:
        return ()
    from migrator.migrations import failure, session
    from migrator.migrations.apply import Run, apply
    from migrator.migrations.contexts import Contexts
    from migrator.migrations.lookout import Lookout
    from migrator.migrations.retry import Patience

    contexts = Contexts(files)
    patience = Patience(settings.database.deadline_s)
    done: list[Done] = []
    with (
        watched_by or Lookout(settings, kill=kill_blockers) as lookout,
        session.opened(settings, "up", lookout=lookout) as connection,
        closing(contexts),
    ):
        work = Run(
            run, settings, files, fence, patience, progress, contexts, lookout, permits, reason
        )
        for number, revision in enumerate(found.todo, 1):
            progress(Started(revision, number, len(found.todo)))
            try:
                with logs.bound(revision=revision.id):
                    permits.before(revision)
                    done.append(apply(work, connection, revision))
                    logs.logger().info("revision applied", duration_ms=done[-1].duration_ms)
            except Exception as exc:
                applied = [one.revision for one in done]
                pieces = work.pieces.get(revision.id)
                known = pieces.known if pieces else ()
                raise failure.explain(exc, revision, applied, known) from exc
            progress(done[-1])
    _confirm(settings, found.heads_after)
    return tuple(done)


def preview(
    settings: Settings,
    *,
    to: str | None = None,
    phase: Phase | None = None,
    allow: Collection[str] = (),
    reason: str | None = None,
) -> tuple[Plan, tuple[Preview, ...]]:
    """Plan as `up` would, and render the SQL offline; no lock, nothing written.

    Raises:
        UsageError, Refused: as `up`.
    """
    from migrator.migrations import check, history, phase_check

    files = history.read(settings)
    found = survey(settings, files, to=to, phase=phase)
    check.refuse_incomplete(files, found.asked)
    permits = phase_check.prove(settings, files, found, allow=allow, reason=reason)
    return found, tuple(
        replace(
            _previewed(settings, files, revision),
            notes=tuple(phase_check.notes(settings, files, revision, permits)),
        )
        for revision in found.todo
    )


def _previewed(settings: Settings, files: History, revision: Revision) -> Preview:
    from migrator.migrations import render

    if revision.backfills:
        return _previewed_backfill(settings, files, revision)
    try:
        return Preview(revision, render.render(files, revision), None)
    except render.NotRenderable as exc:
        return Preview(revision, None, str(exc))


def _previewed_backfill(settings: Settings, files: History, revision: Revision) -> Preview:
    """Show the first page, from the table as it is; read-only."""
    from migrator.migrations import backfill, keyset

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


def _confirm(settings: Settings, expected: tuple[str, ...]) -> None:
    """Read the revision back on a new session: Alembic can report success and commit nothing."""
    with connect(settings, "confirm", autocommit=True) as conn:
        found = applied.heads(conn, settings.migrations)
    if found != expected:
        version = ", ".join(found) or "no revision"
        raise MigratorError(
            f"the database is at {version} after the run",
            expected=f"{', '.join(expected)}, which the run has applied",
            next_step="look at migrator history: somebody else changes this database",
            version=version,
        )
