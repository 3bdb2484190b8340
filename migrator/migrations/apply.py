"""Apply one revision: its DDL, its stamp and its ledger entry in one transaction, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pglast import ast

from migrator.migrations import backfill, check, indexes, normalise, pages, scripts, session
from migrator.migrations.contexts import Contexts
from migrator.migrations.history import History
from migrator.migrations.lookout import Lookout
from migrator.migrations.pages import Filling
from migrator.migrations.phase_check import Permits
from migrator.migrations.pieces import Pieces, Resumed, followed
from migrator.migrations.retry import Effort, HeldOff, Killed, Patience, Retry, Trying
from migrator.migrations.revision import PHASES, Revision
from migrator.postgres import ledger
from migrator.postgres.blockers import Ended
from migrator.postgres.connect import Connection, connect
from migrator.postgres.locks import Fence, end_session
from migrator.postgres.together import Ask, together
from migrator.settings import Settings


@dataclass(frozen=True)
class Run:
    """What all revisions of one command share."""

    id: UUID
    settings: Settings
    history: History
    fence: Fence
    patience: Patience
    told: Callable[[Retry | HeldOff | Killed | Filling | Resumed], None]
    contexts: Contexts
    lookout: Lookout
    permits: Permits
    reason: str | None = None
    pieces: dict[str, Pieces] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """One revision that this run has applied."""

    revision: str
    message: str
    phase: str | None
    entry: int
    duration_ms: int
    retries: int
    lock_wait_ms: int = 0
    ended: tuple[Ended, ...] = ()


def apply(run: Run, connection: sa.Connection, revision: Revision) -> Done:
    """Apply the revision; a lock wait, a deadlock or a lost connection repeats all of it.

    A revision with an autocommit block runs on a session of its own; killed between its statement
    and its stamp, it is repeated by the next run. Where a connection is lost at the commit, the
    ledger is read again: what was committed counts.

    Raises:
        Exhausted: the run's deadline has passed.
        Whatever the revision, PostgreSQL or the fence raises; the transaction is rolled back.
    """
    pids: list[int] = []

    def attempt(effort: Effort) -> tuple[int, int, int]:
        run.fence.renew()
        if revision.backfills:
            return _page_by_page(run, revision, effort, pids)
        if revision.transactional:
            return _in_transaction(run, connection, revision, effort, pids)
        if revision.exempt:
            return _as_alembic_would(run, revision, effort, pids)
        return _outside_transaction(run, revision, effort, pids)

    (entry, duration_ms, lock_wait_ms), effort = Trying(
        attempt,
        revision.id,
        run.patience,
        run.told,
        run.lookout,
        settled=lambda: _settled(run, revision, pids),
    ).patiently()
    return Done(
        revision.id,
        revision.message,
        revision.phase,
        entry,
        duration_ms,
        effort.retries,
        lock_wait_ms,
        tuple(effort.ended),
    )


def _settled(run: Run, revision: Revision, pids: list[int]) -> tuple[int, int, int] | None:
    """What a lost connection had committed; its session on the server is ended first."""
    with connect(run.settings, "settle", autocommit=True) as conn:
        for pid in pids:
            end_session(conn, pid, "migrator up")
        for entry in reversed(ledger.entries(conn)):
            if (entry.run, entry.subject, entry.act) == (run.id, revision.id, "up"):
                return entry.entry, entry.duration_ms, entry.lock_wait_ms or 0
    return None


def _in_transaction(
    run: Run, connection: sa.Connection, revision: Revision, effort: Effort, pids: list[int]
) -> tuple[int, int, int]:
    session.reset(connection)
    pids[:] = [session.backend_pid(connection)]
    with run.lookout.over(pids[0]):
        return _migrate(run, connection, revision, effort)


def _outside_transaction(
    run: Run, revision: Revision, effort: Effort, pids: list[int]
) -> tuple[int, int, int]:
    # Rendering takes Alembic's `op` for itself.
    run.contexts.close()
    statement = check.autocommit_statement(run.history, revision)
    index = indexes.built_by(statement)

    def verify(conn: Connection) -> None:
        if index is not None:
            indexes.require_valid(conn, index)

    with _own_session(run, pids) as connection:
        with session.autocommit(session.driver(connection)) as conn:
            if index is not None:
                indexes.clear_invalid(conn, index)
            elif isinstance(statement, ast.ReindexStmt) and statement.relation is not None:
                indexes.clear_reindexed(conn, statement.relation)
        return _migrate(run, connection, revision, effort, verify=verify)


def _as_alembic_would(
    run: Run, revision: Revision, effort: Effort, pids: list[int]
) -> tuple[int, int, int]:
    """Apply an exempt revision that commits on its way, each piece with a note of it."""
    with _own_session(run, pids, usual=True) as connection:
        return _migrate(run, connection, revision, effort)


@contextmanager
def _own_session(run: Run, pids: list[int], *, usual: bool = False) -> Iterator[sa.Connection]:
    """A session for one revision outside a transaction, opened while the lock is still ours.

    Its timeouts are those of CONCURRENTLY, or the `usual` ones.
    """
    run.contexts.close()
    settings = run.settings if usual else _unhurried(run)
    long_ms = None if usual else run.settings.database.long_statement_timeout_ms
    try:
        with session.opened(
            settings, "up", statement_timeout_ms=long_ms, lookout=run.lookout
        ) as connection:
            pids[:] = [session.backend_pid(connection)]
            with session.autocommit(session.driver(connection)) as conn, conn.transaction():
                run.fence.check(conn)
            with run.lookout.over(pids[0]):
                yield connection
    finally:
        run.contexts.close()


def _page_by_page(
    run: Run, revision: Revision, effort: Effort, pids: list[int]
) -> tuple[int, int, int]:
    """Run the revision's backfill on a session of its own; stamp it when that is complete."""
    started = time.monotonic()
    run.contexts.close()
    declared = backfill.of(run.history, revision)
    pages.run(
        pages.Work(
            run.settings, declared, revision.id, revision.id, run.fence, run.patience, run.told
        )
    )

    def verify(conn: Connection) -> None:
        pages.finish(conn, revision.id)

    with session.opened(run.settings, "up") as connection, backfill.received():
        pids[:] = [session.backend_pid(connection)]
        try:
            with run.lookout.over(pids[0]):
                return _migrate(run, connection, revision, effort, verify=verify, started=started)
        finally:
            run.contexts.close()


def _migrate(
    run: Run,
    connection: sa.Connection,
    revision: Revision,
    effort: Effort,
    *,
    verify: Callable[[Connection], None] = lambda _conn: None,
    started: float | None = None,
) -> tuple[int, int, int]:
    """Let Alembic run upgrade() and stamp it; add our entry and the fence before it commits."""
    conn = session.driver(connection)
    started = time.monotonic() if started is None else started
    written: list[tuple[int, int, int]] = []
    sent: list[str] = []

    kept_inside = revision.transactional and not revision.exempt
    pieces = _pieces(run, revision, conn) if revision.exempt else None

    def upgrade(module: Any) -> None:
        inside = session.kept_inside(connection) if kept_inside else nullcontext()
        noted = followed(connection, pieces) if pieces else nullcontext()
        with session.recorded(connection) as statements, inside, noted:
            module.upgrade()
        sent.extend(statements)

    def record(stamp: list[Ask]) -> None:
        # What fails from here on waits for none of the locks that the revision asked for.
        run.lookout.sight.wants = ()
        run.lookout.ending(conn)
        verify(conn)
        duration_ms = round((time.monotonic() - started) * 1000)
        lock_wait_ms = round(effort.lock_wait_ms + run.lookout.sight.lock_wait_ms)
        entry = _entry(run, revision, effort, duration_ms, lock_wait_ms)
        entry = replace(entry, sql_hash=normalise.sql_hash(sent))
        if pieces:
            pieces.forget(conn)
        *_, number, _ = together(conn, *stamp, *ledger.appending(entry), run.fence.checking())
        written.append((number, duration_ms, lock_wait_ms))

    try:
        with session.unguarded(connection) if revision.exempt else nullcontext():
            run.contexts.run(
                connection,
                revision,
                upgrade=upgrade,
                record=record,
                autocommit_block=_refuse_autocommit if kept_inside else None,
            )
    finally:
        session.roll_back(connection)
    return written[0]


def _pieces(run: Run, revision: Revision, conn: Connection) -> Pieces:
    """What runs before this one have committed of an exempt revision."""
    pieces = Pieces(run.settings, revision.id, run.id, run.fence, _left_ms(run))
    pieces.read(conn)
    if pieces.noted and revision.id not in run.pieces:
        run.told(Resumed(revision.id, pieces.known))
    run.pieces[revision.id] = pieces
    return pieces


def _refuse_autocommit() -> Any:
    raise session.EndsTransaction(
        "autocommit_block, called outside the revision's own file, where migrator cannot see it"
    )


def _unhurried(run: Run) -> Settings:
    """Settings whose lock waits last as long as the run may: CONCURRENTLY blocks nobody meanwhile.

    A short lock_timeout would leave an INVALID index behind whenever an old snapshot is about.
    """
    database = run.settings.database.model_copy(update={"lock_timeout_ms": _left_ms(run)})
    return run.settings.model_copy(update={"database": database})


def _left_ms(run: Run) -> int:
    return max(1, round(run.patience.left_s * 1000))


def _entry(
    run: Run, revision: Revision, effort: Effort, duration_ms: int, lock_wait_ms: int
) -> ledger.NewEntry:
    script = revision.rollback_script
    allowed = run.permits.of(revision) + (["kill-blockers"] if effort.killed else [])
    return ledger.NewEntry(
        act="up",
        subject=revision.id,
        run=run.id,
        duration_ms=duration_ms,
        message=revision.message,
        phase=revision.phase if revision.phase in PHASES else None,
        revises=revision.revises,
        source_hash=revision.source_hash,
        rollback_script=script,
        rollback_hash=None if script is None else scripts.script_hash(script),
        irreversible=revision.irreversible,
        allowed=allowed or None,
        reason=run.reason if allowed else None,
        retries=effort.retries,
        lock_wait_ms=lock_wait_ms,
    )
