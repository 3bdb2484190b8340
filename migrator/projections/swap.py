"""The cut-over: make shadows live, and what was live archived, in one short transaction.

The verified recipe (docs/cut-over.md has the measurements): READ COMMITTED; autovacuum is pushed aside by
a SHARE UPDATE EXCLUSIVE lock that waits longer than deadlock_timeout; then ACCESS EXCLUSIVE under a
lock_timeout that bounds what any reader may wait, retried with jitter; SET SCHEMA both ways, so
that no index or constraint is renamed; privileges follow. Several projections move at once.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from psycopg import sql

from migrator.errors import Busy, MigratorError, Refused
from migrator.logs import logger
from migrator.postgres import catalog, ledger
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections.build import Build

if TYPE_CHECKING:
    from migrator.settings import Settings

AUTOVACUUM_TIMEOUT = "3s"  # longer than deadlock_timeout, whose passing makes autovacuum yield
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 0.8


@dataclass(frozen=True)
class Move:
    """One projection's part of a swap: `incoming` becomes live; `outgoing` was, if any was."""

    incoming: Build
    outgoing: Build | None
    undoes: int | None = None

    @property
    def tables(self) -> list[sql.Identifier]:
        live = [self.incoming.target] if self.outgoing else []
        return [*live, self.incoming.table]


@dataclass(frozen=True)
class Swapped:
    """What a swap did. `held_ms` is how long readers could be kept waiting by the swap itself."""

    moves: tuple[Move, ...]
    entries: tuple[int, ...]
    attempts: int
    held_ms: float


def move_for(conn: Connection, incoming: Build) -> Move:
    """Pair a build with the live one that it replaces; read-only.

    Raises:
        Refused: as `live_build`.
    """
    live = live_build(conn, incoming.projection, incoming.target_schema, incoming.table_name)
    return Move(incoming, live)


def live_build(conn: Connection, projection: str, schema: str, table: str) -> Build | None:
    """Find what a new build would replace, and refuse what could not be replaced; read-only.

    Raises:
        Refused: the table there is none of migrator's, the projection is live in another schema, or
            something hangs on the live table that would not follow a swap.
    """
    live = next(iter(builds.find(conn, projection, ["live"])), None)
    target = catalog.table_oid(conn, sql.Identifier(schema, table))
    if target is not None and live is None:
        raise Refused(
            f"a table {schema}.{table} is there that migrator did not build",
            expected=f"none, or the live build of {projection}",
            next_step="rename it or move it to another schema, then run the same command again",
        )
    if live is not None and live.target_schema != schema:
        raise Refused(
            f"{projection} is live in schema {live.target_schema}",
            expected=f"the schema it shall be in, {schema}",
            next_step="a projection cannot change its schema; give it another table name there",
        )
    if target is None:
        return None
    _refuse_attachments(conn, target, f"{schema}.{table}")
    return live


def _refuse_attachments(conn: Connection, table: int, name: str) -> None:
    hanging = catalog.attachments(conn, table)
    if hanging:
        lines = "".join(f"\n  {each}" for each in hanging)
        raise Refused(
            f"a cut-over would leave behind what hangs on {name}:{lines}",
            expected="a table with its columns, indexes, constraints, grants and comment alone",
            next_step="drop it, run the same command again, and create it anew after the cut-over",
            attachments=hanging,
        )


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

    Raises:
        Busy: the locks were not to be had before the deadline; nothing has changed.
        Refused: a build is no longer in the state that this swap began with.
    """
    limit = time.monotonic() + settings.projections.swap_deadline_s
    attempt = 0
    while True:
        attempt += 1
        try:
            return _attempt(conn, settings, moves, run, reason, attempt)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
            if time.monotonic() > limit:
                raise _busy(conn, moves, attempt) from exc
            logger().info("swap met a lock", attempt=attempt, cause=str(exc).strip())
            pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311


def _attempt(
    conn: Connection,
    settings: Settings,
    moves: list[Move],
    run: UUID,
    reason: str | None,
    attempt: int,
) -> Swapped:
    began = time.perf_counter()
    tables = [table for move in moves for table in move.tables]
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        _lock_builds(conn, moves)
        # Before the tables: whoever waits for the ledger must not hold them.
        conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(AUTOVACUUM_TIMEOUT))
        conn.execute("LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE")
        _lock(conn, tables, "SHARE UPDATE EXCLUSIVE")
        conn.execute(
            sql.SQL("SET LOCAL lock_timeout = {}").format(settings.projections.swap_lock_timeout_ms)
        )
        _lock(conn, tables, "ACCESS EXCLUSIVE")
        held = time.perf_counter()
        entries = [_move(conn, move, run, reason, began) for move in moves]
    held_ms = (time.perf_counter() - held) * 1000
    return Swapped(tuple(moves), tuple(entries), attempt, held_ms)


def _lock_builds(conn: Connection, moves: list[Move]) -> None:
    for move in moves:
        builds.lock(conn, move.incoming.build, "archived" if move.undoes else "verified")
        if move.outgoing:
            builds.lock(conn, move.outgoing.build, "live")


def _lock(conn: Connection, tables: list[sql.Identifier], mode: str) -> None:
    conn.execute(
        sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.SQL(", ").join(tables), sql.SQL(mode))
    )


def _move(conn: Connection, move: Move, run: UUID, reason: str | None, began: float) -> int:
    """Move the tables, then say in build and ledger what was done; all under the locks."""
    live = catalog.table_oid(conn, move.incoming.target)
    if live is not None:
        _refuse_attachments(conn, live, f"{move.incoming.target_schema}.{move.incoming.table_name}")
    for statement in statements(conn, move):
        conn.execute(statement)
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


def statements(conn: Connection, move: Move) -> list[sql.Composed]:
    """The DDL of one move, in order; read-only. A dry run prints it."""
    incoming = move.incoming
    target = catalog.table_oid(conn, incoming.table)
    if target is None:
        raise MigratorError(
            f"the table of build {incoming.build}, {incoming.schema}.{incoming.table_name}, is gone",
            next_step="migrator rebuild-projections builds it anew",
        )
    live = catalog.table_oid(conn, incoming.target) if move.outgoing else None
    if live is not None:
        granted = catalog.grant_statements(conn, live, target)
    else:
        granted = catalog.default_grant_statements(conn, target, incoming.target_schema)
    moved = [_set_schema(incoming.table, incoming.target_schema)]
    if move.outgoing:
        moved.insert(0, _set_schema(incoming.target, move.outgoing.schema))
    return [sql.Composed([sql.SQL(text)]) for text in granted] + moved


def _set_schema(table: sql.Identifier, schema: str) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(table, sql.Identifier(schema))


def _busy(conn: Connection, moves: list[Move], attempts: int) -> Busy:
    names = ", ".join(move.incoming.projection for move in moves)
    holders = conn.execute(
        """SELECT DISTINCT a.pid, a.usename, a.application_name, a.state,
                  round(extract(epoch FROM clock_timestamp() - a.xact_start)) AS age_s
           FROM pg_locks l JOIN pg_stat_activity a USING (pid)
           WHERE l.relation = ANY(%s::regclass[]) AND l.granted AND a.pid <> pg_backend_pid()""",
        ([table.as_string(conn) for move in moves for table in move.tables],),
    ).fetchall()
    lines = "".join(
        f"\n  process {pid} of {user} ({name or 'no name'}), {state} for {age} s"
        for pid, user, name, state, age in holders
    )
    return Busy(
        f"the tables of {names} were not free in {attempts} attempts{':' if lines else ''}{lines}",
        expected="no transaction that stays open on them",
        next_step="end it or wait for it, then run the same command again: only the cut-over is left",
        attempts=attempts,
    )
