"""One deployer at a time: a lock that dies with its holder, and a fence for the one who lost it.

The lock is a transaction-level advisory lock, polled for, on a connection of its own that does
nothing else: it does not block CREATE INDEX CONCURRENTLY (an idle READ COMMITTED transaction holds no
snapshot), and it goes when the process or its connection goes. Since a restarted server drops it
silently, every transaction of the work also checks the epoch in `migrator.deployer`, which the next
holder raises.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import errors, sql

from migrator.errors import Busy
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect

if TYPE_CHECKING:
    from migrator.settings import Settings

POLL_S = 0.2


@dataclass(frozen=True)
class Fence:
    """What a holder proves in each of its transactions."""

    lock: str
    epoch: int

    def check(self, conn: Connection) -> None:
        """Keep the lock ours until this transaction ends.

        Raises:
            Busy: somebody has taken the lock over since; nothing of this transaction may commit.
        """
        row = conn.execute(
            "SELECT holder FROM migrator.deployer WHERE lock = %s AND epoch = %s FOR SHARE",
            (self.lock, self.epoch),
        ).fetchone()
        if row is None:
            raise Busy(
                f"the lock {self.lock!r} was lost and another run has taken it",
                next_step="wait for it (migrator status), then run this again",
            )


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
    """
    # Closed, never committed: a session that a server restart has ended must not fail work that is done.
    with closing(connect(settings, f"lock {lock}", statement_timeout_ms=0)) as holding:
        ledger.ensure(holding)
        limit = time.monotonic() + (
            settings.database.deadline_s if deadline_s is None else deadline_s
        )
        _poll(holding, lock, limit, waiting)
        yield _raise_epoch(settings, lock, limit)


def _poll(holding: Connection, lock: str, limit: float, waiting: Callable[[str], None]) -> None:
    # A literal, not a parameter: the extended protocol would keep a portal open, and with it a
    # snapshot for as long as the lock is held, on which CREATE INDEX CONCURRENTLY waits for ever.
    take = sql.SQL(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('migrator:lock:' || {}, 0))"
    ).format(sql.Literal(lock))
    told = False
    while True:
        got = holding.execute(take).fetchone()
        if got == (True,):
            return
        row = holding.execute(
            "SELECT holder, since FROM migrator.deployer WHERE lock = %s", (lock,)
        ).fetchone()
        holding.rollback()
        holder = f"{row[0]}, since {row[1]:%Y-%m-%d %H:%M:%S} UTC" if row else "another run"
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
            row = conn.execute(
                """INSERT INTO migrator.deployer (lock, epoch, holder) VALUES (%s, 1, %s)
                   ON CONFLICT (lock) DO UPDATE SET epoch = deployer.epoch + 1,
                       holder = excluded.holder, since = clock_timestamp()
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
