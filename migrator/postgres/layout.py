"""The layout of schema `migrator`: what ledger.sql makes, what a database has, and the way between.

Within a format a layout only grows, by tables and by columns that may be null or have a default, so
that a release that knows an older layout goes on writing.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import psycopg
from psycopg import sql

from migrator.errors import Refused
from migrator.postgres.connect import Connection

Columns = dict[str, frozenset[str]]

_TABLE = re.compile(
    r"^CREATE TABLE IF NOT EXISTS migrator\.(\w+) \((.*?)\);$", re.DOTALL | re.MULTILINE
)
_FUNCTION = re.compile(r"^CREATE OR REPLACE FUNCTION migrator\.(\w+)\(", re.MULTILINE)
_COLUMN = re.compile(r"^ {4}(\w+) +([a-z].*?),?$", re.MULTILINE)


def present(conn: Connection) -> Columns:
    """The tables of schema `migrator` in this database, each with its columns; read-only.

    Functions stand among them as `name()`, without columns.
    """
    # Not to_regclass: a session that has once seen nothing there may go on answering so.
    rows = conn.execute(
        """SELECT c.relname::text, array_agg(a.attname::text)
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'migrator'
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE c.relkind = 'r' GROUP BY 1
           UNION ALL
           SELECT DISTINCT p.proname || '()', '{}'::text[]
           FROM pg_proc p
           JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'migrator'"""
    ).fetchall()
    return {table: frozenset(columns) for table, columns in rows}


def lacking(held: Columns) -> list[str]:
    """What ledger.sql makes and `held` lacks, as table or table.column; pure."""
    found = []
    for table, columns in _made().items():
        if table not in held:
            found.append(table)
        else:
            found += [f"{table}.{name}" for name in columns if name not in held[table]]
    return found


def complete(conn: Connection, held: Columns) -> None:
    """Make what is lacking, in the caller's transaction; what is there keeps its rows.

    Raises:
        Refused: the role may not, as it does not own what an older release has made.
    """
    try:
        conn.execute(_read("ledger"))
        for table, columns in _made().items():
            for name in sorted(columns.keys() - held.get(table, columns.keys())):
                conn.execute(_added(table, name, columns[name]))
        if "ledger" in held:
            conn.execute(_read("ledger_checks"))
    except psycopg.errors.InsufficientPrivilege as exc:
        if "format" not in held:
            raise
        raise Refused(
            f"the ledger is of an older layout, which lacks {', '.join(lacking(held))}, "
            f"and role {conn.info.user} may not change it: {exc.diag.message_primary}",
            expected="the owner of schema migrator, once: the command adds what is lacking",
            next_step="run migrator up as the role that owns the ledger",
        ) from exc


def _added(table: str, column: str, definition: str) -> bytes:
    # Both are our own words, from ledger.sql.
    target = sql.Identifier("migrator", table).as_string()
    return f"ALTER TABLE {target} ADD COLUMN IF NOT EXISTS {column} {definition}".encode()


@cache
def _made() -> dict[str, dict[str, str]]:
    """Every column's definition, by table and column, as ledger.sql says it; functions as `name()`."""
    text = _read("ledger").decode()
    tables = {table: dict(_COLUMN.findall(body)) for table, body in _TABLE.findall(text)}
    return tables | {f"{name}()": {} for name in _FUNCTION.findall(text)}


def _read(name: str) -> bytes:
    return files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
