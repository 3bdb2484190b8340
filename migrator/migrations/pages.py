"""Carry a backfill out, page by page: where it is stands in the database, beside what it has done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from migrator.errors import Busy, MigratorError, Refused
from migrator.migrations import keyset, pace, retry
from migrator.migrations.backfill import Backfill, trusted
from migrator.migrations.lookout import Lookout
from migrator.migrations.retry import Patience, Retry, Trying
from migrator.postgres.blockers import Blocker
from migrator.postgres.connect import Connection, connect, translated
from migrator.postgres.locks import Fence, deployer_lock

if TYPE_CHECKING:
    from migrator.settings import Settings

LONGEST_PAGE_MS = 10_000
MOST_PASSES = 10
T = TypeVar("T")
_FORGET = sql.SQL("DELETE FROM migrator.backfill WHERE name = {} AND finished_at IS NULL")


@dataclass(frozen=True)
class Filling:
    """How far a backfill is. `paused` says why it waits; estimates are None where nothing is known."""

    name: str
    table: str
    number: int
    rows_done: int
    rows_read: int
    rows_estimated: int | None
    rows_per_s: float
    seconds_left: float | None
    batch: int
    paused: str | None = None


@dataclass(frozen=True)
class Filled:
    """A backfill that is complete: rows updated over all its runs, and passes over the table."""

    name: str
    table: str
    rows_done: int
    passes: int


@dataclass(frozen=True)
class State:
    """The backfill's row: what is committed of it."""

    id: int
    number: int
    last_key: list[str] | None
    end_key: list[str] | None
    rows_done: int
    rows_read: int
    done_in_pass: int
    batch: int


def fill(
    settings: Settings,
    declared: Backfill,
    *,
    name: str | None = None,
    progress: Callable[[Filling | Retry], None] | None = None,
) -> Filled:
    """Run a backfill outside any revision, one of its name at a time; killed, it goes on.

    Raises:
        Refused: as `run`.
        Busy: as `run`, or another call of this name runs until the deadline.
        MigratorError: as `run`.
    """
    name = name or f"{declared.table}:{declared.hash[:12]}"
    patience = Patience(settings.database.deadline_s)
    with deployer_lock(settings, f"backfill {name}") as fence:
        work = Work(settings, declared, name, None, fence, patience, progress or _unheard)
        filled = run(work)
        with connect(settings, "backfill") as conn:
            fence.check(conn)
            finish(conn, name)
    return filled


@dataclass(frozen=True)
class Work:
    """One backfill of one run. `revision` is None for a library call."""

    settings: Settings
    declared: Backfill
    name: str
    revision: str | None
    fence: Fence
    patience: Patience
    progress: Callable[[Any], None]
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)


def run(work: Work) -> Filled:
    """Do what is left of it, and leave it unfinished: `finish` belongs to the caller's transaction.

    Each page commits with the key it ended at, so that no row is updated twice and a killed run
    goes on after its last page.

    Raises:
        Refused: the table or its key cannot be paged by, the declaration has changed under way,
            or `where` still matches what has been set.
        Busy: locks, or the server's load, lasted until the deadline; or the fence is lost.
        MigratorError: a page failed; it is rolled back, and those before it stay.
    """
    with _session(work.settings) as conn, Lookout(work.settings) as lookout:
        runner = _Runner(work, conn, keyset.target(conn, work.declared), lookout)
        state = runner.attempt(runner.begin)
        while True:
            state = runner.one_pass(state)
            if work.declared.where is None or state.done_in_pass == 0:
                return Filled(work.name, work.declared.table, state.rows_done, state.number)
            if state.number >= MOST_PASSES:
                raise _never_ends(work, state)
            state = runner.attempt(runner.next_pass, state)


def finish(conn: Connection, name: str) -> None:
    """Mark the backfill finished, inside the caller's transaction."""
    conn.execute(
        "UPDATE migrator.backfill SET finished_at = clock_timestamp() "
        "WHERE name = %s AND finished_at IS NULL",
        (name,),
    )


class _Runner:
    """The session, the table and the pace of one run."""

    def __init__(self, work: Work, conn: Connection, aim: keyset.Target, lookout: Lookout) -> None:
        self._work, self._conn, self._aim = work, conn, aim
        self._lookout, self._pid = lookout, keyset.one(conn.execute("SELECT pg_backend_pid()"))[0]
        self._declared = work.declared
        self._began = self._looked = work.clock()
        self._read = 0

    def attempt(self, step: Callable[..., T], *args: Any) -> T:
        """Run one step in a transaction of its own, again after a lock wait."""

        def once() -> T:
            with self._conn.transaction():
                self._work.fence.check(self._conn)
                return step(*args)

        try:
            with self._lookout.over(self._pid):
                done, _ = Trying(
                    lambda _effort: once(),
                    self._work.name,
                    self._work.patience,
                    self._work.progress,
                    self._lookout,
                ).patiently()
        except retry.Exhausted as exc:
            said = f"gave up after {exc.attempts} attempts: {exc.cause}"
            raise _busy(self._work, said, exc.blockers) from exc
        return done

    def begin(self) -> State:
        """Find the row of an unfinished run, or make one."""
        work = self._work
        held = self._conn.execute(
            "SELECT definition_hash, rows_read FROM migrator.backfill "
            "WHERE name = %s AND finished_at IS NULL FOR UPDATE",
            (work.name,),
        ).fetchone()
        if held is not None and held[0] != self._declared.hash:
            if held[1] > 0:
                raise _changed(work, held[1])
            finish(self._conn, work.name)
            held = None
        if held is None:
            self._conn.execute(
                "INSERT INTO migrator.backfill "
                "(name, revision, table_name, definition_hash, batch, end_key) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                (
                    work.name,
                    work.revision,
                    self._declared.table,
                    self._declared.hash,
                    self._declared.batch,
                    self._end_key(),
                ),
            )
        return self._state()

    def next_pass(self, state: State) -> State:
        """Begin again at the first key: rows may have come in behind the last one."""
        self._conn.execute(
            "UPDATE migrator.backfill SET pass = pass + 1, last_key = NULL, end_key = %s, "
            "done_in_pass = 0, rows_read = 0, changed_at = clock_timestamp() WHERE backfill = %s",
            (self._end_key(), state.id),
        )
        self._read, self._began = 0, self._work.clock()
        return self._state()

    def one_pass(self, state: State) -> State:
        """Go on from the last key to the pass's end."""
        while state.end_key is not None and state.last_key != state.end_key:
            self._give_way(state)
            started = self._work.clock()
            try:
                after = self.attempt(self.page, state)
            except psycopg.Error as exc:
                state = self._smaller(state, exc, self._work.clock() - started)
                continue
            elapsed_s = self._work.clock() - started
            if after is None:
                break
            limits = self._declared.limits
            rows = after.rows_done - state.rows_done
            self._read += after.rows_read - state.rows_read
            state = replace(after, batch=pace.adapted(state.batch, elapsed_s, limits))
            self._tell(state)
            time.sleep(pace.rest_s(rows, elapsed_s, limits))
        return state

    def page(self, state: State) -> State | None:
        """Update one page and note the key that it ended at; None where no row is left."""
        query = keyset.bounds(
            self._declared, self._aim, after=state.last_key, end=state.end_key, batch=state.batch
        )
        low, high, read = keyset.one(self._conn.execute(query, prepare=False))
        if high is None:
            return None
        rows = self._update(low, high)
        moved = self._conn.execute(
            """UPDATE migrator.backfill SET last_key = %s, rows_done = rows_done + %s,
                   rows_read = rows_read + %s, done_in_pass = done_in_pass + %s, batch = %s,
                   changed_at = clock_timestamp()
               WHERE backfill = %s AND last_key IS NOT DISTINCT FROM %s AND finished_at IS NULL""",
            (Jsonb(high), rows, read, rows, state.batch, state.id, _jsonb(state.last_key)),
        ).rowcount
        if moved != 1:
            raise Refused(
                f"somebody else has moved backfill {self._work.name} meanwhile",
                expected=f"last_key {state.last_key}",
                next_step="look at migrator.backfill, then run this again",
            )
        return replace(
            state,
            last_key=high,
            rows_done=state.rows_done + rows,
            rows_read=state.rows_read + read,
            done_in_pass=state.done_in_pass + rows,
        )

    def _update(self, low: list[str], high: list[str]) -> int:
        statement = self._declared.statement(
            self._aim.names, self._aim.literal(low), self._aim.literal(high)
        )
        if self._declared.where is None:
            return self._conn.execute(statement, prepare=False).rowcount
        where = trusted(self._declared.where)
        counted = sql.SQL(
            "WITH page AS ({} RETURNING ({}) AS still) "
            "SELECT count(*), count(*) FILTER (WHERE still) FROM page"
        ).format(statement, where)
        rows, still = keyset.one(self._conn.execute(counted, prepare=False))
        if still:
            raise Refused(
                f"backfill of {self._declared.table}: after SET, {still:,} of {rows:,} rows of the "
                f"page still match where: {self._declared.where}",
                expected="a condition that is false once a row has been set: it keeps a row from "
                "being updated twice, and ends the backfill",
                next_step='add to it what tells the two apart, such as "note IS NULL"',
                low=low,
                high=high,
            )
        return cast(int, rows)

    def _end_key(self) -> Jsonb | None:
        """The last key of the table now: a pass ends there, whatever comes in behind it."""
        query = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
            keyset.as_json(self._aim), self._declared.name, keyset.ordered(self._aim, "DESC")
        )
        row = self._conn.execute(query, prepare=False).fetchone()
        return None if row is None else Jsonb(row[0])

    def _state(self) -> State:
        return State(
            *keyset.one(
                self._conn.execute(
                    """SELECT backfill, pass, last_key, end_key, rows_done, rows_read, done_in_pass,
                              batch
                       FROM migrator.backfill WHERE name = %s AND finished_at IS NULL""",
                    (self._work.name,),
                )
            )
        )

    def _smaller(self, state: State, exc: psycopg.Error, elapsed_s: float) -> State:
        """Halve a page that ran into statement_timeout; anything else ends the run."""
        timed_out = isinstance(exc, psycopg.errors.QueryCanceled)
        if timed_out and elapsed_s * 1000 >= _page_timeout_ms(self._work.settings):
            self._work.patience.take(elapsed_s)
            if state.batch > 1 and self._work.patience.left_s > 0:
                return replace(state, batch=state.batch // 2)
        raise _failed(self._work, state, exc) from exc

    def _give_way(self, state: State) -> None:
        """Wait while replicas are behind or the server is loaded; told once for each pause."""
        clock, limits = self._work.clock, self._declared.limits
        if clock() - self._looked < pace.LOOK_EVERY_S and self._read:
            return
        began, told = clock(), None
        while (why := pace.why_pause(pace.look(self._conn), limits)) is not None:
            if clock() - began > self._work.settings.database.deadline_s:
                raise _busy(self._work, f"was paused until the deadline: {why}")
            if told is None:
                self._tell(state, paused=why)
                told = why
            self._work.patience.pause(pace.PAUSE_S)
        self._looked = clock()

    def _tell(self, state: State, *, paused: str | None = None) -> None:
        elapsed_s = max(self._work.clock() - self._began, 1e-6)
        rate = self._read / elapsed_s
        estimated = self._aim.rows_estimated
        left = None if estimated is None else max(0, estimated - state.rows_read)
        self._work.progress(
            Filling(
                name=self._work.name,
                table=self._declared.table,
                number=state.number,
                rows_done=state.rows_done,
                rows_read=state.rows_read,
                rows_estimated=estimated,
                rows_per_s=rate,
                seconds_left=None if left is None or not rate else left / rate,
                batch=state.batch,
                paused=paused,
            )
        )


@contextmanager
def _session(settings: Settings) -> Iterator[Connection]:
    timeout_ms = _page_timeout_ms(settings)
    with connect(settings, "backfill", autocommit=True, statement_timeout_ms=timeout_ms) as conn:
        # Keys are kept as texts, which must mean the same to the run that goes on from them.
        conn.execute("SET datestyle TO ISO")
        yield conn


def _page_timeout_ms(settings: Settings) -> int:
    return min(settings.database.statement_timeout_ms, LONGEST_PAGE_MS)


def _jsonb(key: list[str] | None) -> Jsonb | None:
    return None if key is None else Jsonb(key)


def _unheard(_said: Any) -> None: ...


def _busy(work: Work, said: str, blockers: Sequence[Blocker] = ()) -> Busy:
    found = "".join(f"\nin the way: {blocker}" for blocker in blockers)
    return Busy(
        f"backfill {work.name} of {work.declared.table} {said}; what it has committed stays{found}",
        expected="locks and quiet before the deadline ([database] deadline_s)",
        next_step="end or wait for what holds it up (pg_stat_activity), then run this again: "
        "it goes on after its last page",
        backfill=work.name,
        blockers=[blocker.as_json() for blocker in blockers],
    )


def _changed(work: Work, rows: int) -> Refused:
    return Refused(
        f"backfill {work.name} has gone over {rows:,} rows of {work.declared.table} with another "
        "declaration than this one",
        expected="the declaration that it was begun with; only its pace may change under way",
        next_step="restore it; or begin anew with this one, after psql has run: "
        + _FORGET.format(sql.Literal(work.name)).as_string(None),
        backfill=work.name,
    )


def _never_ends(work: Work, state: State) -> MigratorError:
    return MigratorError(
        f"backfill {work.name} of {work.declared.table} went over the table {state.number} times, "
        f"and {state.done_in_pass:,} rows matched in the last pass: new ones keep coming",
        expected="nobody writes rows that match where any more",
        next_step="let the writers, a default or a trigger set the new value, then run this again",
        backfill=work.name,
        rows_done=state.rows_done,
    )


def _failed(work: Work, state: State, exc: psycopg.Error) -> MigratorError:
    if exc.sqlstate is None or (
        exc.sqlstate[:2] in ("08", "57") and not isinstance(exc, psycopg.errors.QueryCanceled)
    ):
        return translated(exc)
    after = f"after key {', '.join(state.last_key)}" if state.last_key else "at the first key"
    return MigratorError(
        f"backfill {work.name} of {work.declared.table} failed in the page {after}: "
        f"{retry.said(exc)}\n{state.rows_done:,} rows are done and stay; of this page nothing is left",
        expected=f"{work.declared.shown()} to run in pages of {state.batch}",
        next_step="correct the statement or what it met in the database, then run this again",
        backfill=work.name,
        sqlstate=exc.sqlstate,
    )
