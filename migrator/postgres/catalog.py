"""Read the catalogs: what a table is, what hangs on it, and what must be said again on another."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from psycopg import sql

from migrator.postgres.connect import Connection


def table_oid(conn: Connection, table: sql.Identifier) -> int | None:
    """The oid of a table, or None where there is none of that name; read-only."""
    row = conn.execute("SELECT to_regclass(%s)::oid::bigint", (table.as_string(conn),)).fetchone()
    return row[0] if row else None


def attachments(conn: Connection, table: int) -> list[str]:
    """Describe everything that hangs on the table and that a swap would leave behind; read-only."""
    return _texts(conn, "attachments", {"table": table})


def grant_statements(conn: Connection, source: int, target: int) -> list[str]:
    """The DDL that gives `target` the owner, privileges and table comment of `source`; read-only."""
    return _texts(conn, "grants", {"from": source, "to": target})


def default_grant_statements(conn: Connection, target: int, schema: str) -> list[str]:
    """The DDL that gives `target` the default privileges of `schema`; read-only."""
    return _texts(conn, "default_grants", {"to": target, "schema": schema})


def _texts(conn: Connection, name: str, parameters: dict[str, Any]) -> list[str]:
    query = files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
    return [text for (text,) in conn.execute(query, parameters).fetchall()]
