"""The copy that revisions are rehearsed on: what it holds, and one revision applied to it, measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from migrator.errors import CannotConnect, MigratorError
from migrator.migrations import scratch, up
from migrator.migrations.history import History
from migrator.migrations.measure import Measure, Measured
from migrator.migrations.phase_check import Permits
from migrator.migrations.revision import Revision
from migrator.postgres import fingerprint, ledger, relations, snapshot
from migrator.postgres.connect import Connection, connect
from migrator.postgres.fingerprint import Columns, Fingerprint
from migrator.postgres.locks import Fence
from migrator.postgres.relations import Relation
from migrator.settings import Settings

_NO_ROOM = ("53100", "53200", "53300")
Kind = Literal["revision", "rollback", "lock", "index", "check", "rebuild", "slow"]


@dataclass(frozen=True)
class Problem:
    """Something that production would meet; `kind` says what is wrong, `subject` with what."""

    kind: Kind
    subject: str
    found: str
    expected: str
    next_step: str


@dataclass(frozen=True)
class Act:
    """A revision applied or undone once. `wal_bytes` is what the whole server wrote meanwhile."""

    measured: Measured
    wal_bytes: int
    rewritten: tuple[Relation, ...] = ()

    def as_json(self) -> dict[str, Any]:
        strongest = self.measured.strongest
        return {
            "took_ms": self.measured.took_ms,
            "strongest_lock": None if strongest is None else str(strongest),
            "locks": [held.as_json() for held in self.measured.locks],
            "slowest_statements": [vars(took) for took in self.measured.statements],
            "passed_over": list(self.measured.passed_over),
            "wal_bytes": self.wal_bytes,
            "rewritten": [{"table": each.name, "bytes": each.bytes} for each in self.rewritten],
        }


@dataclass(frozen=True)
class State:
    """What the copy holds at one moment."""

    catalog: snapshot.Snapshot
    relations: dict[int, Relation]


@dataclass
class Stand:
    """The copy, and what is known of it from one revision to the next.

    `now` is what it held at the last look, if nothing has changed since. `rows` are the fingerprints of
    all tables as they are, of the columns that production has.
    """

    copy: Settings
    files: History
    fence: Fence
    permits: Permits
    run: UUID
    shares_server: bool
    now: State | None = None
    columns: Columns = field(default_factory=dict)
    rows: dict[str, Fingerprint] = field(default_factory=dict)
    version_tables: list[str] = field(default_factory=list)

    def begin(self) -> None:
        with self.connected() as conn:
            self.version_tables = scratch.version_tables(conn, self.copy)
            derived = _live_tables(conn)
            self.columns = fingerprint.tables(conn, left_out=[*self.version_tables, *derived])
            self.rows = fingerprint.read(conn, self.columns)

    def read_rows(self, tables: Iterable[str]) -> None:
        """Read these tables' rows again, as they are now."""
        changed = {name: self.columns[name] for name in tables}
        for name in changed:
            self.rows.pop(name, None)
        with self.connected() as conn:
            self.rows |= fingerprint.read(conn, changed)

    def up(self, revision: Revision, before: State) -> tuple[Act, int]:
        measure = Measure(
            self.copy,
            before.relations,
            sampled=commits_on_its_way(revision),
            stays_inside=self.shares_server,
        )
        with self.connected() as conn:
            began = wal_written(conn)
            todo = up.survey(self.copy, self.files, to=revision.id)
            (done,) = up.carry_out(
                self.copy,
                self.files,
                todo,
                fence=self.fence,
                run=self.run,
                permits=self.permits,
                reason="rehearsal",
                progress=lambda _step: None,
                watched_by=measure,
            )
            wal_bytes = wal_written(conn) - began
            now = relations.read(conn, left_out=self.version_tables)
        rewritten = tuple(relations.rewritten(before.relations, now))
        return Act(measure.measured(), wal_bytes, rewritten), done.entry

    def look(self) -> State:
        with self.connected() as conn:
            self.version_tables = scratch.version_tables(conn, self.copy)
            return State(
                snapshot.read(conn, left_out=self.version_tables),
                relations.read(conn, left_out=self.version_tables),
            )

    def connected(self) -> Connection:
        return connect(self.copy, "rehearse", autocommit=True, statement_timeout_ms=0)


def commits_on_its_way(revision: Revision) -> bool:
    """Whether its locks are not all held until one commit."""
    return revision.exempt or revision.backfills or not revision.transactional


def _live_tables(conn: Connection) -> list[str]:
    """The live tables of projections: derived, and no business of revisions."""
    if not ledger.exists(conn):
        return []
    rows = conn.execute(
        """SELECT quote_ident(target_schema) || '.' || quote_ident(table_name)
           FROM migrator.build WHERE state = 'live'"""
    ).fetchall()
    return [name for (name,) in rows]


def wal_written(conn: Connection) -> int:
    """How much WAL the server has ever written, in bytes; read-only."""
    row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    assert row is not None
    written: int = row[0]
    return written


def refuse_lost(exc: MigratorError) -> None:
    """Let what says nothing about the revision end the rehearsal."""
    if isinstance(exc, CannotConnect) or exc.data.get("sqlstate") in _NO_ROOM:
        raise exc
