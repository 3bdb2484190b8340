"""Measure what a revision does to others: the locks it takes, for how long, and what takes its time.

Inside a transaction this is exact: all its locks are held until it ends, so they are read right before
that. Where a revision commits on its way, another session looks on every few milliseconds, and what a
statement is documented to lock is added.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from migrator.errors import MigratorError
from migrator.migrations import inside, scripts, wanted
from migrator.migrations.lint.locks import Mode, locks
from migrator.migrations.lookout import Lookout, Sight
from migrator.postgres.connect import Connection, connect
from migrator.postgres.relations import Relation, Relations
from migrator.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

SAMPLE_EVERY_S = 0.003
SLOW_STATEMENTS = 5
SLOW_MS = 10
KnownBy = Literal["read", "seen", "documented"]


@dataclass(frozen=True)
class Held:
    """The strongest lock on one relation that was there before, and for how long it was held.

    `held_ms` is the longest that it can have been: from the beginning of the statement that took it.
    `known_by` says how it is known: read in the transaction itself, seen from another session, or
    documented for the statement.
    """

    relation: str
    kind: str
    mode: Mode
    held_ms: float
    known_by: KnownBy
    statement: str | None

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "mode": str(self.mode), "held_ms": round(self.held_ms, 1)}


@dataclass(frozen=True)
class Took:
    """One statement and how long it took."""

    statement: str
    ms: float


@dataclass(frozen=True)
class Measured:
    """What one act has done to others. `strongest` is None where it locked nothing that was there."""

    took_ms: float
    locks: tuple[Held, ...]
    statements: tuple[Took, ...]
    passed_over: tuple[str, ...]

    @property
    def strongest(self) -> Mode | None:
        return max((held.mode for held in self.locks), default=None)


@dataclass
class _Seen:
    """A lock in one mode; `until` is None while it lasts to the end of the transaction."""

    since: float
    until: float | None
    known_by: KnownBy
    statement: str | None


class Measure(Lookout):
    """A lookout that keeps what it sees of one revision, applied or undone.

    `sampled` says that it commits on its way. `before_end` is called with the session right before the
    last commit, when the locks have been read. `stays_inside` keeps it from acting on the whole server.
    """

    def __init__(
        self,
        settings: Settings,
        relations: Relations,
        *,
        sampled: bool,
        stays_inside: bool,
        before_end: Callable[[Connection], None] = lambda _conn: None,
    ) -> None:
        super().__init__(settings)
        self._relations = relations
        self._sampled = sampled
        self._stays_inside = stays_inside
        self._passes_over = False
        self._before_end = before_end
        self._passed: list[str] = []
        self._clear()

    def _clear(self) -> None:
        self._began = self._ended = time.perf_counter()
        self._seen: dict[tuple[int, Mode], _Seen] = {}
        self._statements: list[Took] = []
        self._dead_in_the_end: set[int] = set()
        self._under_way: tuple[str, float] | None = None

    @contextmanager
    def over(self, pid: int) -> Iterator[Sight]:
        self._clear()  # an attempt that failed is forgotten
        stop = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(pid, stop), daemon=True)
        with super().over(pid) as sight:
            if self._sampled:
                sampler.start()
            try:
                yield sight
            finally:
                stop.set()
                if self._sampled:
                    sampler.join()

    def joined(self, connection: sa.Connection) -> None:
        if self._stays_inside:
            inside.keep(connection, passed=self._passed.append)
            self._passes_over = True

    def before(self, conn: Connection, statement: str) -> None:
        if self._stays_inside and not self._passes_over and inside.reaches_out(statement):
            raise inside.ReachesOut(scripts.first_line(statement))
        super().before(conn, statement)
        self._under_way = scripts.first_line(statement), time.perf_counter()
        if conn.autocommit:
            self._expect(statement)

    def after(self, conn: Connection) -> None:
        if self._under_way is not None:
            said, began = self._under_way
            self._under_way = None
            now = time.perf_counter()
            self._statements.append(Took(said, (now - began) * 1000))
            if conn.autocommit:
                for seen in self._seen.values():
                    seen.until = now if seen.statement == said else seen.until
            elif self.sight.wants:
                self._read(conn, began, said)
        super().after(conn)

    def ending(self, conn: Connection) -> None:
        self._read(conn, self._began, None)
        self._ended = time.perf_counter()
        if self._stays_inside:
            inside.check(conn)
        self._before_end(conn)

    def measured(self) -> Measured:
        """What was seen, once it is over."""
        strongest: dict[int, Held] = {}
        for (oid, mode), seen in sorted(self._seen.items(), key=lambda item: -item[0][1]):
            if oid not in strongest:
                relation = self._relations[oid]
                held_ms = round(((seen.until or self._ended) - seen.since) * 1000, 1)
                strongest[oid] = Held(
                    relation.name, relation.kind, mode, held_ms, seen.known_by, seen.statement
                )
        slow = sorted(self._statements, key=lambda took: -took.ms)[:SLOW_STATEMENTS]
        slow = [took for took in slow if took.ms >= SLOW_MS]
        return Measured(
            round((self._ended - self._began) * 1000, 1),
            tuple(sorted(strongest.values(), key=lambda held: (-held.mode, held.relation))),
            tuple(replace(took, ms=round(took.ms, 1)) for took in slow),
            tuple(dict.fromkeys(map(scripts.first_line, self._passed))),
        )

    def _read(self, conn: Connection, since: float, statement: str | None) -> None:
        for oid, mode in conn.execute(_OWN).fetchall():
            if oid in self._relations:
                key = oid, _MODES[mode]
                self._seen.setdefault(key, _Seen(since, None, "read", statement))

    def _sample(self, pid: int, stop: threading.Event) -> None:
        """Look on from another session; what cannot be seen does not fail the work."""
        with (
            suppress(psycopg.Error, MigratorError),
            connect(self._settings, "rehearse", autocommit=True) as conn,
        ):
            while not stop.wait(SAMPLE_EVERY_S):
                for oid, mode in conn.execute(_OF_ANOTHER, (pid,)).fetchall():
                    # CONCURRENTLY locks an index out in its last moment, when nobody uses it any more.
                    if oid in self._relations and oid not in self._dead_in_the_end:
                        self._note(oid, _MODES[mode], "seen")

    def _expect(self, statement: str) -> None:
        """Note what a statement outside a transaction is documented to lock."""
        try:
            nodes = scripts.parsed(statement)
        except ValueError:
            return
        for lock in (lock for node in nodes for lock in locks(node)):
            for relation in self._named(lock.table):
                if relation.kind == "index":
                    self._dead_in_the_end.add(relation.oid)
                for oid in {relation.oid, relation.table}:
                    self._note(oid, lock.mode, "documented")

    def _note(self, oid: int, mode: Mode, known_by: KnownBy) -> None:
        now = time.perf_counter()
        said, began = self._under_way or (None, now)
        seen = self._seen.setdefault((oid, mode), _Seen(began, now, known_by, said))
        seen.until = now

    def _named(self, name: str) -> list[Relation]:
        """The relations that a name as written may mean: without a schema, in any."""
        bare = name.replace('"', "")
        full = {relation.name.replace('"', ""): relation for relation in self._relations.values()}
        return [each for said, each in full.items() if bare in (said, said.partition(".")[2])]


_OWN = b"""
SELECT relation::bigint, mode FROM pg_catalog.pg_locks
WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
_OF_ANOTHER = b"""
SELECT relation::bigint, mode FROM pg_catalog.pg_locks
WHERE pid = %s AND locktype = 'relation' AND granted
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
_MODES = {wanted.spelled(mode): mode for mode in Mode}
