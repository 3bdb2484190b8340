"""Look out for whom a run waits: a second session sees who is in the way, before and during a wait.

Before a statement asks for a lock, transactions that have held a conflicting one for long are found:
whoever queues behind them keeps readers waiting in turn. While a statement waits, the blockers are
seen. What cannot be seen (no second session is to be had) never fails the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Self, TypeVar

import psycopg

from migrator.errors import MigratorError
from migrator.migrations import wanted
from migrator.postgres import blockers
from migrator.postgres.blockers import Blocker, Ended, Want
from migrator.postgres.connect import Connection, connect
from migrator.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

LONGEST_LOOK_PAUSE_S = 0.1


class InTheWay(Exception):
    """Long transactions hold what a statement would have to queue for; it was not sent."""

    def __init__(self, wants: tuple[Want, ...], found: list[Blocker]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.wants = wants
        self.blockers = found


@dataclass
class Sight:
    """What was seen during one attempt of a revision."""

    pid: int
    began: float = field(default_factory=time.monotonic)
    wants: tuple[Want, ...] = ()
    blocks_somebody: bool = False
    blockers: list[Blocker] = field(default_factory=list)
    waits_ms: dict[datetime, float] = field(default_factory=dict)

    @property
    def lock_wait_ms(self) -> float:
        """How long the attempt has waited for locks; shorter waits than 0.1 s may be missed."""
        return sum(self.waits_ms.values())


class Lookout:
    """One for each run; a context manager. `kill` says that who is in the way may be ended."""

    def __init__(self, settings: Settings, *, kill: bool = False) -> None:
        self.kill = kill
        self.sight = Sight(pid=0)
        self._settings = settings
        self._long_s = settings.database.long_transaction_s
        self._pause_s = min(settings.database.lock_timeout_ms / 4000, LONGEST_LOOK_PAUSE_S)
        self._conn: Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._watched: Sight | None = None
        self._watcher: threading.Thread | None = None
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with self._one_at_a_time:
            if self._conn is not None:
                self._conn.close()

    @contextmanager
    def over(self, pid: int) -> Iterator[Sight]:
        """Watch session `pid` for the block: whom it waits for, and for how long."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        sight = self.sight = self._watched = Sight(pid)
        try:
            yield sight
        finally:
            self._watched = None

    def before(self, conn: Connection, statement: str) -> None:
        """Prepare a statement: nobody is long in its way, and its timeout is that of its class.

        Raises:
            InTheWay: somebody is; the statement was not sent.
        """
        wants = wanted.of(statement)
        self.sight.wants = wants
        if not wants:
            self.sight.blocks_somebody |= wanted.changes_rows(statement)
            return
        found = self.in_the_way(wants)
        if found:
            raise InTheWay(wants, found)
        self.sight.blocks_somebody |= not all(want.blocks_nobody for want in wants)
        if not self.sight.blocks_somebody:
            self._set_timeout(conn, self._settings.database.long_statement_timeout_ms)

    def after(self, conn: Connection) -> None:
        """Take back the timeout that a statement of its own class was given."""
        if self.sight.wants and not self.sight.blocks_somebody:
            self._set_timeout(conn, None)

    def _set_timeout(self, conn: Connection, timeout_ms: int | None) -> None:
        """Only in a transaction, and only where the revision has not set one of its own."""
        usual = f"{self._settings.database.statement_timeout_ms}ms"
        longer = f"{self._settings.database.long_statement_timeout_ms}ms"
        if conn.autocommit or conn.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
            return
        old, new = (usual, longer) if timeout_ms is not None else (longer, usual)
        conn.execute(
            """SELECT set_config('statement_timeout', %s, true)
               WHERE current_setting('statement_timeout')::interval = %s::interval""",
            (new, old),
        )

    def joined(self, connection: sa.Connection) -> None:
        """A session for revisions was opened; a lookout that measures wants to know."""

    def ending(self, conn: Connection) -> None:
        """The work is done and its transaction is about to end, with all the locks it has taken.

        What is raised here takes it back.
        """

    def in_the_way(self, wants: Sequence[Want]) -> list[Blocker]:
        """The transactions older than `long_transaction_s` that hold what these locks wait for."""

        def look(conn: Connection) -> list[Blocker]:
            found = self._long(blockers.holding(conn, wants, own=self.sight.pid))
            if any(b.is_autovacuum and not b.prevents_wraparound for b in found):
                blockers.push_autovacuum_aside(conn, wants)
                found = self._long(blockers.holding(conn, wants, own=self.sight.pid))
            return found

        return self._looking(look, [])

    def _long(self, found: list[Blocker]) -> list[Blocker]:
        return [blocker for blocker in found if blocker.is_older_than(self._long_s)]

    def blockers(self) -> list[Blocker]:
        """Who kept the last attempt waiting: seen meanwhile, or still holding what it wanted."""
        sight = self.sight
        if sight.blockers or not sight.wants:
            return sight.blockers
        return self._looking(lambda c: blockers.holding(c, sight.wants, own=sight.pid), [])

    def end(self, found: Sequence[Blocker]) -> list[Ended]:
        """End those that have been in the way for long, where this run may kill; else nobody."""
        old = [blocker for blocker in found if blocker.is_older_than(self._long_s)]
        if not self.kill or not old:
            return []
        return self._looking(lambda conn: blockers.end(conn, old), [])

    def _watch(self) -> None:
        """Look at what has lasted for a pause: most revisions are over before that."""
        pause_s = self._pause_s
        while not self._closed.wait(pause_s):
            pause_s, sight = self._pause_s, self._watched
            if sight is None:
                continue
            lacks_s = self._pause_s - (time.monotonic() - sight.began)
            if lacks_s > 0:
                pause_s = lacks_s
            else:
                self._look(sight)

    def _look(self, sight: Sight) -> None:
        def look(conn: Connection) -> None:
            found = blockers.blocking(conn, sight.pid)
            since = blockers.waiting_since(conn, sight.pid) if found else None
            if since is not None:
                sight.blockers = found
                sight.waits_ms[since[0]] = since[1]

        self._looking(look, None)

    def _looking(self, look: Callable[[Connection], T], otherwise: T) -> T:
        with self._one_at_a_time, suppress(psycopg.Error, MigratorError):
            if self._closed.is_set():
                return otherwise
            if self._conn is None or self._conn.closed:
                self._conn = connect(self._settings, "lookout", autocommit=True)
            return look(self._conn)
        return otherwise
