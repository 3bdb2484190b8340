"""Parts of scripts that psql alone can run: literals, templates, and the ledger's entry in SQL."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from uuid import uuid4

from psycopg import sql

from migrator.postgres import ledger
from migrator.postgres.ledger import NewEntry

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
       set_config('migrator.started', clock_timestamp()::text, false) AS migrator_noted_2 \gset
"""


def file_name(prefix: str, subject: str) -> str:
    """A file's name that needs no quotes in a shell or in SQL."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_.-]', '_', subject)}.sql"


def head(file: str) -> str:
    """How psql is to run the script: it stops at the first error, and demands a reason."""
    return _HEAD.replace("{{file}}", file)


def noted() -> str:
    """Keep the reason and the time of the start for the guards and the entry."""
    return _NOTED


def filled(name: str, **values: str) -> str:
    """A template of sql/ with each {{name}} replaced."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _read(name)).rstrip()


def inlined(name: str, **values: str) -> str:
    """A query of sql/ with SQL in the place of its parameters."""
    text = _read(name)
    for parameter, value in values.items():
        text = text.replace(f"%({parameter})s", value)
    return text.replace("%%", "%").rstrip()


def _read(name: str) -> str:
    return files("migrator.postgres").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")


def literal(value: str | None) -> str:
    """A literal under standard_conforming_strings, in which a backslash is a backslash."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def identifier(*names: str) -> str:
    """A quoted name, qualified where there are several."""
    return sql.Identifier(*names).as_string()


def array(names: tuple[str, ...]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]::text[]"


def in_message(text: str) -> str:
    """Text within the quotes of a message of RAISE, where % stands for an argument."""
    return text.replace("'", "''").replace("%", "%%")


def dollar_quoted(text: str) -> str:
    tag = "$undo$"
    # A text that ends as the tag begins would end the literal together with the tag's own dollar.
    while tag in f"{text}$":
        tag = f"$undo_{uuid4().hex[:8]}$"
    return f"{tag}{text}{tag}"


def recorded(known: NewEntry) -> str:
    """The SQL that appends an entry and commits: `known`, but for its run, reason and duration."""
    run, reason, duration_ms = uuid4(), uuid4().hex, uuid4().int
    unknown = {str(run): "run", reason: "reason_in_json", str(duration_ms): "duration_ms"}
    text = ledger.said(replace(known, run=run, reason=reason, duration_ms=duration_ms))
    pieces = re.split(f"({'|'.join(unknown)})", text)
    columns = {
        name: value
        for name, value in vars(known).items()
        if value is not None and name not in ("run", "reason", "duration_ms")
    }
    return filled(
        "export_record",
        columns=", ".join(columns),
        values=", ".join(_value(value) for value in columns.values()),
        json=" || ".join(unknown.get(piece) or literal(piece) for piece in pieces),
    )


def _value(value: object) -> str:
    return str(value) if isinstance(value, int) else literal(str(value))
