"""Undo one applied revision by the rollback script that the ledger keeps, not by a file."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from migrator.errors import CannotConnect, MigratorError, Refused
from migrator.migrations import applied, failure, retry, scripts
from migrator.migrations.lookout import Lookout
from migrator.migrations.retry import Effort, Patience, StatementFailed, Told, Trying
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.postgres.ledger import Entry, NewEntry
from migrator.postgres.locks import Fence, end_session
from migrator.settings import Settings


@dataclass(frozen=True)
class Undone:
    """One revision that was undone, and the ledger entry that says so."""

    revision: str
    version: str | None
    entry: int
    duration_ms: int
    retries: int


def script_of(entry: Entry) -> str:
    """Return the rollback script that was stored when the revision was applied; pure.

    Raises:
        Refused: the entry is of no revision, the revision is irreversible, or the script is not
            the one that was stored then.
    """
    if entry.act != "up":
        raise Refused(
            f"entry {entry.entry} is a {entry.act} of {entry.subject}",
            expected="an entry of a revision: its act is up",
            next_step="migrator history shows every entry",
        )
    if entry.irreversible is not None or entry.rollback_script is None:
        reason = entry.irreversible or "it was applied without a rollback script"
        raise Refused(
            f"revision {entry.subject} is irreversible: {reason}",
            expected="a revision with a rollback script",
            next_step="go forward: write a revision that repairs what it did",
            revision=entry.subject,
            reason=reason,
        )
    if scripts.script_hash(entry.rollback_script) != entry.rollback_hash:
        raise Refused(
            f"the rollback script of {entry.subject} in the ledger is tampered: its hash differs",
            expected=f"the script whose SHA-256 is {entry.rollback_hash}",
            next_step=f"restore migrator.ledger.rollback_script of entry {entry.entry} from "
            f"rollback/{entry.subject}.sql in the release's checkout, then run this again",
            revision=entry.subject,
        )
    return entry.rollback_script


def shown(settings: Settings, entry: Entry) -> str:
    """The SQL that `undo_revision` would run, with what it does around it; pure.

    Raises:
        Refused: as `script_of`.
    """
    script = script_of(entry).strip()
    table = settings.migrations.version_table
    back = f"{table} goes back to {entry.revises}" if entry.revises else f"{table} is emptied"
    around = (
        ("-- outside a transaction:", f"-- then, in one transaction: {back}")
        if scripts.is_autocommit(script)
        else ("BEGIN;", f"-- {back}; the ledger gets an entry\nCOMMIT;")
    )
    title = f"-- undo {entry.subject} {entry.message or ''}".rstrip()
    return "\n".join([title, around[0], script, around[1]])


def undo_revision(
    settings: Settings,
    entry: Entry,
    *,
    reason: str,
    run: UUID,
    fence: Fence,
    patience: Patience | None = None,
    told: Told = lambda _step: None,
    watched_by: Lookout | None = None,
) -> Undone:
    """Run the stored script, set the version table back and record it, in one transaction.

    Needs no file of the revision. A script that begins with `-- migrator: autocommit` runs outside
    a transaction and can be repeated; version and record follow in one. `watched_by` is closed here.

    Raises:
        Refused: as `script_of`; or the revision is not the newest that is applied.
        Busy: locks lasted until the deadline, or the fence is lost.
        MigratorError: the script failed; what it did is rolled back.
    """
    script = script_of(entry)
    once = _outside_transaction if scripts.is_autocommit(script) else _in_transaction
    pids: list[int] = []
    with watched_by or Lookout(settings) as lookout:
        record = _Record(settings, entry, reason, run, fence, lookout, pids)

        def attempt(effort: Effort) -> tuple[int, int]:
            fence.renew()
            return once(record, script, effort)

        trying = Trying(
            attempt,
            entry.subject,
            patience or Patience(settings.database.deadline_s),
            told,
            lookout,
            settled=record.settled,
        )
        try:
            (number, duration_ms), effort = trying.patiently()
        except retry.Exhausted as exc:
            raise _busy(exc, entry) from exc
        except (StatementFailed, psycopg.Error) as exc:
            raise _failed(exc, entry, script) from exc
    return Undone(entry.subject, entry.revises, number, duration_ms, effort.retries)


@dataclass(frozen=True)
class _Record:
    """What is written beside the script: version, ledger entry, fence."""

    settings: Settings
    entry: Entry
    reason: str
    run: UUID
    fence: Fence
    lookout: Lookout
    pids: list[int]

    def watched(self, conn: Connection) -> AbstractContextManager[Any]:
        """Look out for whom this session waits."""
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        self.pids[:] = [row[0]]
        return self.lookout.over(row[0])

    def settled(self) -> tuple[int, int] | None:
        """What a lost connection had committed; its session on the server is ended first."""
        with connect(self.settings, "settle", autocommit=True) as conn:
            for pid in self.pids:
                end_session(conn, pid, "migrator rollback")
            for entry in reversed(ledger.entries(conn)):
                if entry.undoes == self.entry.entry:
                    return entry.entry, entry.duration_ms
        return None

    def check(self, conn: Connection) -> None:
        self.fence.check(conn)
        _refuse_unless_newest(conn, self.settings, self.entry)

    def write(self, conn: Connection, started: float, effort: Effort) -> tuple[int, int]:
        self.lookout.ending(conn)
        migrations = self.settings.migrations
        state = applied.read(conn, migrations)
        after = applied.heads_without(state, self.entry)
        applied.move_heads(conn, migrations, before=state.heads, after=after)
        duration_ms = round((time.monotonic() - started) * 1000)
        return ledger.append(conn, self._entry(duration_ms, effort)), duration_ms

    def _entry(self, duration_ms: int, effort: Effort) -> NewEntry:
        return NewEntry(
            act="rollback",
            subject=self.entry.subject,
            run=self.run,
            duration_ms=duration_ms,
            message=self.entry.message,
            phase=self.entry.phase,
            revises=self.entry.revises,
            undoes=self.entry.entry,
            reason=self.reason,
            retries=effort.retries,
            lock_wait_ms=round(effort.lock_wait_ms + self.lookout.sight.lock_wait_ms),
        )


def _in_transaction(record: _Record, script: str, effort: Effort) -> tuple[int, int]:
    started = time.monotonic()
    with connect(record.settings, "rollback") as conn, record.watched(conn):
        record.check(conn)
        _execute(record, conn, script)
        return record.write(conn, started, effort)


def _outside_transaction(record: _Record, script: str, effort: Effort) -> tuple[int, int]:
    started = time.monotonic()
    long_ms = record.settings.database.long_statement_timeout_ms
    with (
        connect(record.settings, "rollback", autocommit=True, statement_timeout_ms=long_ms) as conn,
        record.watched(conn),
    ):
        with conn.transaction():
            record.check(conn)
        _execute(record, conn, script)
        with conn.transaction():
            record.check(conn)
            return record.write(conn, started, effort)


def _execute(record: _Record, conn: Connection, script: str) -> None:
    for statement in scripts.split(script):
        record.lookout.before(conn, statement)
        try:
            conn.execute(statement.encode(), prepare=False)
        except psycopg.Error as exc:
            raise StatementFailed(statement) from exc
        record.lookout.after(conn)


def _refuse_unless_newest(conn: Connection, settings: Settings, entry: Entry) -> None:
    state = applied.read(conn, settings.migrations)
    newest = state.standing[-1] if state.standing else None
    if newest is not None and newest.entry == entry.entry:
        return
    now = f"the newest is {newest.subject}" if newest else "no revision is applied"
    raise Refused(
        f"revision {entry.subject} (entry {entry.entry}) is not the newest that is applied; {now}",
        expected="the newest first: later revisions may stand on it",
        next_step=f"migrator rollback --to {entry.revises}"
        if newest and entry.revises
        else "migrator history",
        newest=newest.subject if newest else None,
    )


def _busy(exc: retry.Exhausted, entry: Entry) -> MigratorError:
    data: dict[str, Any] = {"revision": entry.subject, "attempts": exc.attempts}
    if exc.lost_connection:
        return CannotConnect(
            f"undoing {entry.subject} lost its connection, and the server did not answer again "
            f"before the deadline: {exc.cause}",
            next_step="bring PostgreSQL back, look at migrator history, then run migrator rollback "
            "again if it is still applied",
            **data,
        )
    kept = f"{entry.subject} is still applied"
    return failure.busy(exc, f"undoing {entry.subject}", kept, "migrator rollback", data)


def _failed(exc: StatementFailed | psycopg.Error, entry: Entry, script: str) -> MigratorError:
    cause = retry.driver_error(exc)
    statement = exc.statement if isinstance(exc, StatementFailed) else None
    at = f"\nin: {scripts.first_line(statement)}" if statement else ""
    left = (
        "the revision is still applied; its script runs outside a transaction and can be repeated"
        if scripts.is_autocommit(script)
        else "what the script did is rolled back; the revision is still applied"
    )
    return MigratorError(
        f"the rollback script of {entry.subject} failed: {retry.said(cause)}{at}\n{left}",
        next_step="remove what it met in the database, then run migrator rollback again",
        revision=entry.subject,
        statement=statement,
        sqlstate=getattr(cause, "sqlstate", None),
    )
