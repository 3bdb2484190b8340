"""Write rollback scripts that psql alone can run, guarded against the wrong database or moment."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from psycopg import sql

from migrator.errors import Refused
from migrator.migrations import applied, scripts, undo
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.postgres.ledger import Entry, NewEntry
from migrator.settings import Settings

INDEX = "index.md"


@dataclass(frozen=True)
class Script:
    """One file: it undoes `revision`, and leaves the database at `leaves`."""

    file: str
    revision: str
    message: str
    leaves: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Export:
    """The scripts in the order they are to be run in, and why they end where they end."""

    scripts: tuple[Script, ...]
    ends: str
    index: str


@dataclass(frozen=True)
class _Target:
    """What all scripts share."""

    settings: Settings
    version_table: str
    search_path: str


def plan(settings: Settings) -> Export:
    """Write the text of a script for each applied revision, newest first; read-only.

    It stops before the first revision that cannot be undone: what is older stands beneath it.

    Raises:
        Refused: no applied revision can be undone, or version table and ledger disagree.
    """
    with connect(settings, "export") as conn:
        conn.read_only = True
        ledger.refuse_older(conn)
        state = applied.read(conn, settings.migrations)
        target = _target(conn, settings) if state.standing else None
    made: list[Script] = []
    ends = "the database is then at no revision"
    for entry in reversed(state.standing):
        assert target is not None
        try:
            after = applied.heads_without(state, entry)
            made.append(_script(target, entry, undo.script_of(entry), state.heads, after))
        except Refused as exc:
            ends = exc.found
            break
        state = replace(
            state, heads=after, entries=tuple(e for e in state.entries if e.entry != entry.entry)
        )
    if not made:
        raise Refused(
            f"there is no script to export: {ends}",
            expected="an applied revision with a rollback script in the ledger",
            next_step="migrator history shows what was done",
        )
    return Export(tuple(made), ends, _index(made, ends))


def write(export: Export, folder: Path) -> list[Path]:
    """Write the scripts and their index into a folder that is new or empty; returns the files.

    Raises:
        Refused: the folder holds something, which might be an older export.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(
            f"{folder} is not empty",
            expected="a new or empty folder: an older export's scripts must not stand among these",
            next_step="name another folder, or empty this one",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = [(script.file, script.text) for script in export.scripts] + [(INDEX, export.index)]
    for name, text in written:
        (folder / name).write_bytes(text.encode())
    return [folder / name for name, _ in written]


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
    file = f"undo_{re.sub(r'[^A-Za-z0-9_.-]', '_', entry.subject)}.sql"
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
        _HEAD.replace("{{file}}", file),
        "-- The rollback script as the ledger keeps it; its SHA-256 is checked before it runs.",
        f"SELECT {_dollar_quoted(script)} AS migrator_script \\gset",
        _NOTED,
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
    parts += [f"\\echo 'undone: {entry.subject}; the database is at {_named(after)}'"]
    return Script(file, entry.subject, message, after, "\n".join(parts) + "\n")


_ONE_TRANSACTION = (
    "\n-- One transaction: everything, or nothing. Refused or failed, psql exits with 3."
)
_AUTOCOMMIT = (
    "Its statement cannot run in a transaction: it runs alone, and version table and ledger follow\n"
    "-- in one. Interrupted in between, run it again: the statement can be repeated."
)
_HEAD = r"""
\set ON_ERROR_STOP on
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT on
\encoding UTF8
\if :{?reason}
\else
  DO $$ BEGIN RAISE EXCEPTION 'there is no reason'
      USING HINT = 'say why: psql -v reason=... -f {{file}}'; END $$;
\endif
SET standard_conforming_strings = on;
"""
_NOTED = r"""SELECT set_config('migrator.reason', :'reason', false) AS migrator_noted,
       set_config('migrator.started', clock_timestamp()::text, false) AS migrator_noted_2,
       set_config('migrator.script_hash',
                  encode(sha256(convert_to(:'migrator_script', 'UTF8')), 'hex'), false)
           AS migrator_noted_3 \gset
"""


def _guard(target: _Target, entry: Entry, before: tuple[str, ...], file: str) -> str:
    is_autocommit = scripts.is_autocommit(entry.rollback_script or "")
    # What is put into a message is put between quotes there, where % stands for an argument.
    quoted = {
        "revision": entry.subject.replace("'", "''").replace("%", "%%"),
        "file": file,
        "format": str(ledger.FORMAT),
        "entry": str(entry.entry),
        "version_table": target.version_table,
    }
    return _filled(
        "export_guard",
        **quoted,
        lock_timeout=_literal(f"{target.settings.database.lock_timeout_ms}ms"),
        lock="pg_try_advisory_lock" if is_autocommit else "pg_try_advisory_xact_lock",
        entry_hash=_literal(entry.entry_hash),
        before=_array(before),
        rollback_hash=_literal(entry.rollback_hash),
    )


def _record(target: _Target, entry: Entry, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    return _filled(
        "export_record",
        version_table=target.version_table,
        gone=_array(tuple(name for name in before if name not in after)),
        come=_array(tuple(name for name in after if name not in before)),
        subject=_literal(entry.subject),
        message=_literal(entry.message),
        phase=_literal(entry.phase),
        revises=_literal(entry.revises),
        entry=str(entry.entry),
        json=_json(entry),
    )


def _json(entry: Entry) -> str:
    """The SQL for what the new entry says: known now, but for its run, reason and duration."""
    run, reason, duration_ms = uuid4(), uuid4().hex, uuid4().int
    new = NewEntry(
        act="rollback",
        subject=entry.subject,
        run=run,
        duration_ms=duration_ms,
        message=entry.message,
        phase=entry.phase,
        revises=entry.revises,
        undoes=entry.entry,
        reason=reason,
    )
    unknown = {str(run): "run", reason: "reason_in_json", str(duration_ms): "duration_ms"}
    pieces = re.split(f"({'|'.join(unknown)})", ledger.said(new))
    return " || ".join(unknown.get(piece) or _literal(piece) for piece in pieces)


def _filled(name: str, **values: str) -> str:
    text = files("migrator.postgres").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text).rstrip()


def _literal(value: str | None) -> str:
    """A literal under standard_conforming_strings, in which a backslash is a backslash."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def _array(names: tuple[str, ...]) -> str:
    return f"ARRAY[{', '.join(map(_literal, names))}]::text[]"


def _dollar_quoted(text: str) -> str:
    tag = "$undo$"
    # A text that ends as the tag begins would end the literal together with the tag's own dollar.
    while tag in f"{text}$":
        tag = f"$undo_{uuid4().hex[:8]}$"
    return f"{tag}{text}{tag}"


def _named(heads: tuple[str, ...]) -> str:
    return ", ".join(heads) or "no revision"


def _index(made: list[Script], ends: str) -> str:
    rows = "".join(
        f"| {number} | `{script.file}` | {script.revision} | {script.message} | {_named(script.leaves)} |\n"
        for number, script in enumerate(made, 1)
    )
    return f"""# Rollback scripts for psql

Run them in this order, newest first, as many as are needed and each once:

    psql -X -v reason='why' -f {made[0].file} "$MIGRATOR_DATABASE_URL"

| order | file | undoes | message | the database is then at |
|---|---|---|---|---|
{rows}
After the last: {ends}.

Each refuses to run on another database, out of order, twice, while migrator runs, or where the script
or the ledger was tampered with; psql then exits with 3 and nothing has changed. A lock wait ends it in the
same way: run it again. Each writes its entry into the ledger; `migrator verify` and `migrator history` show it.

They fit this one state of the database: after the next `migrator up`, export them anew.
"""
