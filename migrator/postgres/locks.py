"""One deployer at a time: a lock that dies with its holder, and a fence for the one who lost it.

The lock is a transaction-level advisory lock, polled for, on a connection of its own that does
nothing else: it does not block CREATE INDEX CONCURRENTLY (an idle READ COMMITTED transaction holds no
snapshot), and it goes when the process or its connection goes. Since a restarted server drops it
silently, every transaction of the work also checks the epoch in `migrator.deployer`, which the next
holder raises; between transactions `Fence.renew` takes a lost lock again, if nobody else has.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from migrator.errors import Busy
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect, refuse_unfit
from migrator.postgres.heartbeat import Heartbeat
from migrator.postgres.together import Ask, Cursor, together

if TYPE_CHECKING:
    from migrator.settings import Settings

POLL_S = 0.2
PRESUMED_LOST_S = 30.0


@dataclass(frozen=True)
class Fence:
    """What a holder proves in each of its transactions."""

    lock: str
    epoch: int
    _held: _Held | None = field(default=None, repr=False, compare=False)

    def check(self, conn: Connection) -> None:
        """Keep the lock ours until this transaction ends.

        Raises:
            Busy: somebody has taken the lock over since; nothing of this transaction may commit.
        """
        together(conn, self.checking())

    def checking(self) -> Ask:
        """What `check` asks of the server, and raises where the answer is no."""
        # KEY SHARE lets the heartbeat write the row meanwhile; the next holder asks for more.
        return Ask(self._query, read=self._read)

    @cached_property
    def _query(self) -> bytes:
        query = sql.SQL(
            "SELECT FROM migrator.deployer WHERE lock = {} AND epoch = {} FOR KEY SHARE"
        )
        return query.format(sql.Literal(self.lock), sql.Literal(self.epoch)).as_bytes()

    def _read(self, cursor: Cursor) -> None:
        if cursor.fetchone() is None:
            raise self._lost()

    def renew(self) -> None:
        """Make sure, between transactions, that the lock is held: a server restart drops it.

        Raises:
            Busy: it was lost, and somebody else has taken it meanwhile.
            CannotConnect: it was lost, and the server does not answer yet.
        """
        if self._held is not None and not self._held.renewed(self.lock, self.epoch):
            raise self._lost()

    def _lost(self) -> Busy:
        return Busy(
            f"the lock {self.lock!r} was lost and another run has taken it",
            next_step="wait for it (migrator status), then run this again",
        )


class _Held:
    """The connection that holds an advisory lock, and nothing else."""

    def __init__(self, settings: Settings, lock: str) -> None:
        self._settings = settings
        self._purpose = f"lock {lock}"
        self.conn = self._connected()

    def _connected(self) -> Connection:
        conn = connect(self._settings, self._purpose, statement_timeout_ms=0)
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        self._pid: int = row[0]
        conn.rollback()
        return conn

    def close(self) -> None:
        """Give the lock back; a session that is lost already must not fail work that is done."""
        self.conn.close()

    def take(self, lock: str) -> bool:
        # A literal, not a parameter: the extended protocol would keep a portal open, and with it a
        # snapshot for as long as the lock is held, on which CREATE INDEX CONCURRENTLY waits for ever.
        query = sql.SQL("SELECT pg_try_advisory_xact_lock({})").format(_key(lock))
        return self.conn.execute(query).fetchone() == (True,)

    def renewed(self, lock: str, epoch: int) -> bool:
        """Whether the lock is held: still, or again under the same epoch."""
        with suppress(psycopg.OperationalError):
            # Nothing comes to an idle connection but the news of its end.
            if self.conn.closed or select.select([self.conn.fileno()], [], [], 0)[0]:
                self.conn.execute("SELECT 1")
            return True
        self.conn.close()
        lost = self._pid
        self.conn = self._connected()
        # After a cut network the server may not have noticed, and the old session holds the lock.
        end_session(self.conn, lost, f"migrator {self._purpose}")
        if not self.take(lock):
            return False
        row = self.conn.execute(
            sql.SQL("SELECT FROM migrator.deployer WHERE lock = {} AND epoch = {}").format(
                sql.Literal(lock), sql.Literal(epoch)
            )
        ).fetchone()
        return row is not None


def end_session(conn: Connection, pid: int, application: str, *, patience_s: float = 10) -> None:
    """End a session of ours that was lost, and wait until the server has noticed."""
    query = sql.SQL(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE pid = {} AND application_name = {} AND usename = session_user"""
    ).format(sql.Literal(pid), sql.Literal(application))
    limit = time.monotonic() + patience_s
    while conn.execute(query).fetchone() is not None and time.monotonic() < limit:
        conn.rollback()
        time.sleep(0.02)
    conn.rollback()


def _key(lock: str) -> sql.Composed:
    return sql.SQL("hashtextextended('migrator:lock:' || {}, 0)").format(sql.Literal(lock))


@contextmanager
def deployer_lock(
    settings: Settings,
    lock: str,
    *,
    deadline_s: float | None = None,
    waiting: Callable[[str], None] = lambda _holder: None,
) -> Iterator[Fence]:
    """Hold `lock` for the block. `waiting` is told once who holds it, if somebody does.

    Raises:
        Busy: somebody else held it until the deadline.
        Refused: the server, or what lies before it, cannot hold a lock.
    """
    with closing(_Held(settings, lock)) as held:
        refuse_unfit(held.conn, settings)
        ledger.ensure(held.conn)
        limit = time.monotonic() + (
            settings.database.deadline_s if deadline_s is None else deadline_s
        )
        _poll(held, lock, limit, waiting)
        fence = _raise_epoch(settings, lock, limit)
        with Heartbeat(settings, lock, fence.epoch):
            yield replace(fence, _held=held)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or held it last."""

    lock: str
    holder: str
    since: datetime
    heartbeat_age_s: float

    @property
    def seems_alive(self) -> bool:
        """Whether a heartbeat has come lately; a process may be gone before the server has noticed."""
        return self.heartbeat_age_s < PRESUMED_LOST_S

    def __str__(self) -> str:
        alive = f"last sign of life {self.heartbeat_age_s:.0f} s ago"
        return f"{self.holder}, since {self.since:%Y-%m-%d %H:%M:%S} UTC, {alive}"


_HOLDERS = """
SELECT d.lock, d.holder, d.since,
       -- An older layout has no heartbeat_at.
       extract(epoch FROM clock_timestamp() - coalesce(
           (to_jsonb(d) ->> 'heartbeat_at')::timestamptz, d.since))::float8 AS heartbeat_age_s
FROM migrator.deployer AS d
"""
_IS_HELD = """
JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('migrator:lock:' || d.lock, 0)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY d.lock
"""


def holders(conn: Connection) -> list[Holder]:
    """Every lock that is held now, and by whom; the ledger exists. Read-only."""
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute((_HOLDERS + _IS_HELD).encode()).fetchall()


def _last_holder(conn: Connection, lock: str) -> str:
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        found = cursor.execute((_HOLDERS + "WHERE d.lock = %s").encode(), (lock,)).fetchone()
    return str(found) if found else "another run"


def _poll(held: _Held, lock: str, limit: float, waiting: Callable[[str], None]) -> None:
    told = False
    while not held.take(lock):
        holder = _last_holder(held.conn, lock)
        held.conn.rollback()
        if not told:
            waiting(holder)
            told = True
        if time.monotonic() >= limit:
            raise Busy(
                f"another run holds the lock {lock!r}: {holder}",
                expected="it to end before the deadline",
                next_step="wait for it, or look at it with migrator status",
                holder=holder,
            )
        time.sleep(min(POLL_S * random.uniform(0.5, 1.5), max(limit - time.monotonic(), 0)))  # noqa: S311


def _raise_epoch(settings: Settings, lock: str, limit: float) -> Fence:
    """Fence off whoever lost the lock; waits for a transaction of theirs that is under way."""
    left_ms = max(1, round((limit - time.monotonic()) * 1000))
    database = settings.database.model_copy(update={"lock_timeout_ms": left_ms})
    patient = settings.model_copy(update={"database": database})
    try:
        with connect(patient, f"fence {lock}", statement_timeout_ms=0) as conn:
            conn.execute("SELECT FROM migrator.deployer WHERE lock = %s FOR UPDATE", (lock,))
            row = conn.execute(
                """INSERT INTO migrator.deployer (lock, epoch, holder) VALUES (%s, 1, %s)
                   ON CONFLICT (lock) DO UPDATE SET epoch = deployer.epoch + 1,
                       holder = excluded.holder, since = clock_timestamp(),
                       heartbeat_at = clock_timestamp()
                   RETURNING epoch""",
                (lock, f"{ledger.client()} (process {os.getpid()})"),
            ).fetchone()
    except errors.LockNotAvailable as exc:
        raise Busy(
            f"a run that has lost the lock {lock!r} is still in a transaction",
            expected="it to end before the deadline",
            next_step="wait for it, or end its session (pg_stat_activity), then run this again",
        ) from exc
    assert row is not None
    return Fence(lock, row[0])
