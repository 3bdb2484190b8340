"""The cut-over: make shadows live, and what was live archived, in one short transaction.

The verified recipe (docs/cut-over.md has the measurements): READ COMMITTED; autovacuum is pushed aside by
a SHARE UPDATE EXCLUSIVE lock that waits longer than deadlock_timeout; then ACCESS EXCLUSIVE under a
lock_timeout that bounds what any reader may wait, retried with jitter; SET SCHEMA both ways, so
that no index or constraint is renamed; what hangs on the old table is carried over. Several
projections move at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from psycopg import sql

from migrator.errors import Busy, Refused
from migrator.logs import logger
from migrator.postgres import attached, catalog, ledger
from migrator.postgres.attached import Attached
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import carry, swap_sql, tail, writers
from migrator.projections.carry import Unvalidated
from migrator.projections.move import Move, incoming_table, refuse_attachments

if TYPE_CHECKING:
    from migrator.settings import Settings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 0.8
DRAIN_PAUSE_S = 0.05


@dataclass(frozen=True)
class Swapped:
    """What a swap did.

    `held_ms` is how long the tables were locked; `stall_ms` the longest that a reader can have waited
    for us, in any attempt. `notes` tell what was added to the old tables by hand, and where it is.
    `caught_up` is how many events were applied to the incoming builds, which the live ones had read.
    """

    moves: tuple[Move, ...]
    entries: tuple[int, ...]
    attempts: int
    held_ms: float
    stall_ms: float = 0.0
    unvalidated: tuple[Unvalidated, ...] = ()
    notes: tuple[str, ...] = ()
    caught_up: int = 0


class _Changed(Exception):
    """What hangs on a table changed between the look at it and the lock."""


@dataclass
class _Try:
    """One swap's attempts, and what they cost others."""

    conn: Connection
    settings: Settings
    moves: list[Move]
    run: UUID
    reason: str | None
    attempt: int = 0
    stall_ms: float = 0.0
    caught_up: int = 0


def swap(
    conn: Connection,
    settings: Settings,
    moves: list[Move],
    *,
    run: UUID,
    reason: str | None = None,
) -> Swapped:
    """Make every incoming build live at one instant, and record it in the ledger.

    Atomic: readers see all the new tables or all the old ones, and never an error. Nobody waits
    much longer than `swap_lock_timeout_ms` for us. Positions need no change: each build has its own.
    A build whose definition its move has is brought up to what the live one has read: readers never
    go back in time.
    What hangs on the live tables hangs on the new ones afterwards; their foreign keys hold for
    new rows at once, and are validated after the commit.

    Raises:
        Busy: the locks were not to be had before the deadline; nothing has changed.
        Refused: a build is no longer in the state that this swap began with, or something on the live
            table cannot be carried over.
    """
    tried = _Try(conn, settings, moves, run, reason)
    limit = time.monotonic() + settings.projections.swap_deadline_s
    while True:
        tried.attempt += 1
        try:
            notes = _prepare(conn, moves)
            if tried.attempt == 1:
                carry.refuse_orphans(conn, moves)
            # What is left for the locks is then short; and what was done stays, if they are not to be had.
            tried.caught_up += tail.bring(conn, settings, moves)
            _drain(conn, moves, limit)
            swapped, later = _attempt(tried, notes)
            break
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, _Changed) as exc:
            if time.monotonic() > limit:
                raise _busy(conn, moves, tried.attempt, exc) from exc
            logger().info("swap met a lock", attempt=tried.attempt, cause=str(exc).strip())
            pause = min(FIRST_PAUSE_S * 2 ** (tried.attempt - 1), LONGEST_PAUSE_S)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
    unvalidated = carry.validate(conn, later)
    return Swapped(**{**vars(swapped), "unvalidated": tuple(unvalidated)})


def _prepare(conn: Connection, moves: list[Move]) -> list[str]:
    notes = []
    for move in moves:
        live = catalog.table_oid(conn, move.incoming.target)
        incoming = incoming_table(conn, move.incoming)
        if live is not None and move.outgoing is not None:
            refuse_attachments(conn, move.outgoing, attached.shape(conn, incoming))
            carry.prepare(conn, move.outgoing, move.incoming)
            notes += carry.added_by_hand(conn, move.outgoing, move.incoming)
    return notes


def _drain(conn: Connection, moves: list[Move], limit: float) -> None:
    """Wait for the snapshots that are older than the new tables' rows.

    A REPEATABLE READ transaction that first reads a table after the swap would find it half loaded.
    An archived build's rows are old, and a swap-back, which may be urgent, waits for nobody.

    Raises:
        Busy: some were still there at the deadline.
    """
    query = files("migrator.postgres").joinpath("sql/older_snapshots.sql").read_bytes()
    parameters = {"builds": [move.incoming.build for move in moves if not move.undoes]}
    while older := conn.execute(query, parameters).fetchall():
        if time.monotonic() > limit:
            raise Busy(
                "transactions are open that began before the new rows were written, and would see "
                f"only some of them:{_processes(older)}",
                expected="none: each has a snapshot older than the new table",
                next_step="end them or wait for them, then run the same command again: only the "
                "cut-over is left",
            )
        time.sleep(DRAIN_PAUSE_S)


def _attempt(tried: _Try, notes: list[str]) -> tuple[Swapped, list[str]]:
    conn, moves, began = tried.conn, tried.moves, time.perf_counter()
    timeout_ms = tried.settings.projections.swap_lock_timeout_ms
    ours = [table for move in moves for table in move.tables]
    with conn.transaction():
        conn.execute("SET LOCAL search_path = ''")
        # Before anything else: who waits for projectors to end their batch must hold nothing.
        conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(swap_sql.AUTOVACUUM_TIMEOUT))
        writers.exclude(conn, [move.incoming.projection for move in moves])
        _lock_builds(conn, moves)
        # Projectors wait for this, readers do not: no table is locked yet.
        caught_up = tail.bring_inside(conn, tried.settings, moves)
        # Before the tables: whoever waits for the ledger must not hold them.
        conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(swap_sql.AUTOVACUUM_TIMEOUT))
        conn.execute("LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE")
        _push_aside(conn, ours)
        marks = _marks(conn, moves)
        carried = _looked(conn, moves)
        others = swap_sql.others(ours, carried)
        statements = swap_sql.body(conn, moves, carried)
        _push_aside(conn, others)
        views = [view for each in carried for view in each.views]
        asked = time.perf_counter()
        try:
            _lock_out(conn, views, [*others, *ours], timeout_ms)
            held = time.perf_counter()
            if _marks(conn, moves) != marks:
                raise _Changed("what hangs on the table has changed meanwhile")
            _run(conn, statements)
            entries = [_record(conn, move, tried.run, tried.reason, began) for move in moves]
        finally:
            tried.stall_ms = max(tried.stall_ms, (time.perf_counter() - asked) * 1000)
    ended = time.perf_counter()
    stall_ms = max(tried.stall_ms, (ended - asked) * 1000)
    swapped = Swapped(
        tuple(moves),
        tuple(entries),
        tried.attempt,
        held_ms=(ended - held) * 1000,
        stall_ms=stall_ms,
        notes=tuple(notes),
        caught_up=tried.caught_up + caught_up,
    )
    return swapped, swap_sql.once([s for each in carried for s in each.validations])


def _lock_builds(conn: Connection, moves: list[Move]) -> None:
    for move in moves:
        builds.lock(conn, move.incoming.build, "archived" if move.undoes else "verified")
        if move.outgoing:
            builds.lock(conn, move.outgoing.build, "live")


def _push_aside(conn: Connection, tables: Sequence[sql.Composable]) -> None:
    """Keep autovacuum and other DDL off the tables; readers and writers go on."""
    if tables:
        conn.execute(
            sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(
                sql.SQL(", ").join(tables)
            )
        )


def _looked(conn: Connection, moves: list[Move]) -> list[Attached]:
    """What hangs on the tables, now that their own settings cannot change any more."""
    for move in moves:
        if move.outgoing and catalog.table_oid(conn, move.incoming.target) is not None:
            shape = attached.shape(conn, incoming_table(conn, move.incoming))
            refuse_attachments(conn, move.outgoing, shape)
            left = carry.preparations(conn, move.outgoing, move.incoming)
            if left:
                raise _Changed(f"the table has changed meanwhile: {left[0]}")
    return [carry.captured(conn, move) for move in moves]


def _lock_out(
    conn: Connection, views: list[str], tables: list[sql.Composable], timeout_ms: int
) -> None:
    """Lock readers out, within the timeout in all: whoever waits for one lock waits for all of them."""
    limit = time.perf_counter() + timeout_ms / 1000
    locks = [view.encode() for view in swap_sql.once(views)]
    locks += [
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table).as_string(conn).encode()
        for table in tables
    ]
    for lock in locks:
        left_ms = max(round((limit - time.perf_counter()) * 1000), 1)
        try:
            conn.execute(f"SET LOCAL lock_timeout = {left_ms}; ".encode() + lock)
        except psycopg.errors.UndefinedTable as exc:
            raise _Changed(f"something was dropped meanwhile: {exc.diag.message_primary}") from exc
    conn.execute(f"SET LOCAL lock_timeout = {timeout_ms}".encode())


def _marks(conn: Connection, moves: list[Move]) -> str:
    """What is another text once anything hangs on the tables that did not, or the other way round.

    Views, functions and grants take no lock that ours would keep out.
    """
    oids = [catalog.table_oid(conn, table) for move in moves for table in move.tables]
    return attached.marks(conn, [oid for oid in oids if oid is not None])


def _run(conn: Connection, statements: list[str]) -> None:
    """Run them in one round trip, since readers wait meanwhile."""
    try:
        conn.execute(";\n".join(statements).encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise
    except psycopg.Error as exc:
        raise Refused(
            f"PostgreSQL refuses to carry something over: {exc.diag.message_primary}",
            expected="a new table on which all that hangs on the old one can stand",
            next_step="change or drop what the message names, then run the same command again: only "
            "the cut-over is left, and nothing has changed",
            detail=exc.diag.message_detail,
        ) from exc


def _record(conn: Connection, move: Move, run: UUID, reason: str | None, began: float) -> int:
    """Say in build and ledger what was done."""
    if move.outgoing:
        builds.save(conn, move.outgoing, "archived")
    for lost in builds.find(conn, move.incoming.projection, ["live"]):
        builds.save(conn, lost, "dropped")  # its table is gone: somebody dropped it by hand
    builds.save(conn, move.incoming, "live")
    return ledger.append(
        conn,
        ledger.NewEntry(
            act="swap-back" if move.undoes else "cut-over",
            subject=move.incoming.projection,
            run=run,
            duration_ms=round((time.perf_counter() - began) * 1000),
            source_hash=move.incoming.definition_hash,
            build=move.incoming.build,
            replaced_build=move.outgoing.build if move.outgoing else None,
            undoes=move.undoes,
            reason=reason,
        ),
    )


def _busy(conn: Connection, moves: list[Move], attempts: int, cause: Exception) -> Busy:
    names = ", ".join(move.incoming.projection for move in moves)
    holders = conn.execute(
        """SELECT DISTINCT a.pid, a.usename, a.application_name, a.state,
                  round(extract(epoch FROM clock_timestamp() - a.xact_start)) AS age_s
           FROM pg_locks l JOIN pg_stat_activity a USING (pid)
           WHERE l.relation = ANY(%s::regclass[]) AND l.granted AND a.pid <> pg_backend_pid()""",
        ([table.as_string(conn) for move in moves for table in move.tables],),
    ).fetchall()
    lines = _processes(holders)
    if isinstance(cause, _Changed):
        return Busy(
            f"the tables of {names} did not stay as they were in {attempts} attempts: {cause}",
            expected="nobody else who changes them meanwhile",
            next_step="run the same command again: only the cut-over is left",
            attempts=attempts,
        )
    return Busy(
        f"the tables of {names} were not free in {attempts} attempts{':' if lines else ''}{lines}",
        expected="no transaction that stays open on them",
        next_step="end it or wait for it, then run the same command again: only the cut-over is left",
        attempts=attempts,
    )


def _processes(rows: list[tuple[object, ...]]) -> str:
    return "".join(
        f"\n  process {pid} of {user} ({name or 'no name'}), {state} for {age} s"
        for pid, user, name, state, age in rows
    )
