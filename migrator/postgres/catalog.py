"""Read the catalogs: what a table is, what hangs on it, and what must be said again on another."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from migrator.postgres.connect import Connection


def table_oid(conn: Connection, table: sql.Identifier) -> int | None:
    """The oid of a table, or None where there is none of that name; read-only."""
    row = conn.execute("SELECT to_regclass(%s)::oid::bigint", (table.as_string(conn),)).fetchone()
    return row[0] if row else None


def table_name(conn: Connection, table: int) -> sql.Identifier:
    """The qualified name of a table; read-only."""
    row = conn.execute(
        """SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
           WHERE c.oid = %s""",
        (table,),
    ).fetchone()
    assert row is not None
    return sql.Identifier(*row)


def formatted_types(conn: Connection, types: dict[str, str]) -> dict[str, str | None]:
    """Each column's type as `format_type` writes it; None for all where the server lacks one."""
    nulls = sql.SQL(", ").join(sql.SQL(f"NULL::{name}") for name in types.values())
    try:
        with conn.transaction():
            result = conn.execute(sql.SQL("SELECT {}").format(nulls)).pgresult
            assert result is not None
            said = [(result.ftype(i), result.fmod(i)) for i in range(len(types))]
            oids, modifiers = zip(*said, strict=True)
            rows = conn.execute(
                """SELECT format_type(t, m)
                   FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS u (t, m, place) ORDER BY place""",
                (list(oids), list(modifiers)),
            ).fetchall()
    except psycopg.errors.UndefinedObject:
        return dict.fromkeys(types)
    return {name: text for name, (text,) in zip(types, rows, strict=True)}


def grant_statements(conn: Connection, source: int, target: int | None) -> list[str]:
    """The DDL that gives `target` the owner, privileges and table comment of `source`; read-only.

    It names `target` by the name of `source`: it is to be run once it stands in the latter's place.
    """
    return _texts(conn, "grants", {"from": source, "to": target})


def reader_statements(conn: Connection, source: int, schema: str) -> list[str]:
    """The DDL that lets the readers of `source` read the table of its name in `schema`; read-only."""
    return _texts(conn, "readers", {"from": source, "schema": schema})


def default_grant_statements(conn: Connection, target: int, schema: str) -> list[str]:
    """The DDL that gives `target` the default privileges of `schema`; read-only."""
    return _texts(conn, "default_grants", {"to": target, "schema": schema})


def _texts(conn: Connection, name: str, parameters: dict[str, Any]) -> list[str]:
    query = files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
    return [text for (text,) in conn.execute(query, parameters).fetchall()]
