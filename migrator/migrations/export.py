"""Write rollback scripts that psql alone can run, guarded against the wrong database or moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from migrator.errors import Refused
from migrator.migrations import applied, scripts, undo
from migrator.postgres import ledger, psqlscript
from migrator.postgres.connect import Connection
from migrator.postgres.ledger import Entry, NewEntry
from migrator.settings import Settings


@dataclass(frozen=True)
class Script:
    """One file: it undoes `revision`, and leaves the database at `leaves`."""

    file: str
    revision: str
    message: str
    leaves: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class _Target:
    """What all scripts share."""

    settings: Settings
    version_table: str
    search_path: str


def scripts_of(conn: Connection, settings: Settings) -> tuple[tuple[Script, ...], str]:
    """Write the text of a script for each applied revision, newest first; read-only.

    It stops before the first revision that cannot be undone, since what is older stands beneath it;
    the text says why it ends there.

    Raises:
        Refused: version table and ledger disagree.
    """
    state = applied.read(conn, settings.migrations)
    target = _target(conn, settings) if state.standing else None
    made: list[Script] = []
    for entry in reversed(state.standing):
        assert target is not None
        try:
            after = applied.heads_without(state, entry)
            made.append(_script(target, entry, undo.script_of(entry), state.heads, after))
        except Refused as exc:
            return tuple(made), exc.found
        state = replace(
            state, heads=after, entries=tuple(e for e in state.entries if e.entry != entry.entry)
        )
    return tuple(made), "the database is then at no revision"


def _target(conn: Connection, settings: Settings) -> _Target:
    migrations = settings.migrations
    name = sql.Identifier(
        *filter(None, (migrations.version_table_schema, migrations.version_table))
    )
    row = conn.execute(
        """SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                  (SELECT coalesce(string_agg(quote_ident(s), ', '), '')
                     FROM unnest(current_schemas(false)) AS s)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.oid = to_regclass(%s)""",
        (name.as_string(conn),),
    ).fetchone()
    assert row is not None
    return _Target(settings, row[0], row[1])


def _script(
    target: _Target, entry: Entry, script: str, before: tuple[str, ...], after: tuple[str, ...]
) -> Script:
    file = psqlscript.file_name("undo", entry.subject)
    message = (entry.message or "").replace("\n", " ")
    guard, record = _guard(target, entry, before, file), _record(target, entry, before, after)
    database = target.settings.database
    is_autocommit = scripts.is_autocommit(script)
    parts = [
        f"-- Undo revision {entry.subject}"
        + (f": {message}" if message else "")
        + f"\n-- Run: psql -X -v reason='why' -f {file}   on the database it was exported from."
        + ("\n-- " + _AUTOCOMMIT if is_autocommit else _ONE_TRANSACTION)
        + "\n-- docs/migrations.md, rollback scripts for psql, says what the guards check.",
        psqlscript.head(file),
        "-- The rollback script as the ledger keeps it; its SHA-256 is checked before it runs.",
        f"SELECT {psqlscript.dollar_quoted(script)} AS migrator_script \\gset",
        psqlscript.noted() + _HASHED,
        guard,
    ]
    if is_autocommit:
        parts += [
            "COMMIT;",
            f"SET lock_timeout = '{round(database.deadline_s * 1000)}ms';",
            "SET statement_timeout = 0;",
        ]
    else:
        parts.append(f"SET LOCAL statement_timeout = '{database.statement_timeout_ms}ms';")
    local = "" if is_autocommit else "LOCAL "
    parts.append(f"SET {local}search_path = {target.search_path or repr('')};")
    parts += ["-- Here the script runs.", ":migrator_script\n;"]
    if is_autocommit:
        parts.append(guard)
    parts.append(record)
    if is_autocommit:
        # The server may end the session a while after psql: the next script would be refused.
        parts.append("SELECT pg_advisory_unlock_all() AS migrator_unlocked \\gset")
    parts += [f"\\echo 'undone: {entry.subject}; the database is at {named(after)}'"]
    return Script(file, entry.subject, message, after, "\n".join(parts) + "\n")


_ONE_TRANSACTION = (
    "\n-- One transaction: everything, or nothing. Refused or failed, psql exits with 3."
)
_AUTOCOMMIT = (
    "Its statement cannot run in a transaction: it runs alone, and version table and ledger follow\n"
    "-- in one. Interrupted in between, run it again: the statement can be repeated."
)
_HASHED = r"""SELECT set_config('migrator.script_hash',
                  encode(sha256(convert_to(:'migrator_script', 'UTF8')), 'hex'), false)
           AS migrator_noted_3 \gset
"""


def _guard(target: _Target, entry: Entry, before: tuple[str, ...], file: str) -> str:
    is_autocommit = scripts.is_autocommit(entry.rollback_script or "")
    quoted = {
        "revision": psqlscript.in_message(entry.subject),
        "file": file,
        "format": str(ledger.FORMAT),
        "entry": str(entry.entry),
        "version_table": target.version_table,
    }
    return psqlscript.filled(
        "export_guard",
        **quoted,
        lock_timeout=psqlscript.literal(f"{target.settings.database.lock_timeout_ms}ms"),
        lock="pg_try_advisory_lock" if is_autocommit else "pg_try_advisory_xact_lock",
        entry_hash=psqlscript.literal(entry.entry_hash),
        before=psqlscript.array(before),
        rollback_hash=psqlscript.literal(entry.rollback_hash),
    )


def _record(target: _Target, entry: Entry, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    gone = psqlscript.array(tuple(name for name in before if name not in after))
    come = psqlscript.array(tuple(name for name in after if name not in before))
    new = NewEntry(
        act="rollback",
        subject=entry.subject,
        run=entry.run,
        duration_ms=0,
        message=entry.message,
        phase=entry.phase,
        revises=entry.revises,
        undoes=entry.entry,
    )
    return "\n".join(
        [
            f"DELETE FROM {target.version_table} WHERE version_num = ANY ({gone});",  # noqa: S608
            f"INSERT INTO {target.version_table} (version_num) SELECT unnest({come});",
            psqlscript.recorded(new),
        ]
    )


def named(heads: tuple[str, ...]) -> str:
    """The revisions that the database is at, for people."""
    return ", ".join(heads) or "no revision"
