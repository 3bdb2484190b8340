"""What the database knows of the tables that a script names; read-only."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pglast import ast

from migrator.migrations.lint.model import Script, Surroundings, qualified
from migrator.migrations.lint.walk import key, nodes
from migrator.settings import Settings

if TYPE_CHECKING:
    from migrator.postgres.connect import Connection


def without_database(
    settings: Settings, *, managed: bool, projections: Iterable[str] = ()
) -> Surroundings:
    """What the settings and the projections' files say."""
    return Surroundings(
        projections=frozenset(projections),
        append_only=frozenset(_both(settings.migrations.append_only)),
        lock_timeout_ms=settings.database.lock_timeout_ms if managed else None,
        statement_timeout_ms=settings.database.statement_timeout_ms if managed else None,
    )


def from_database(conn: Connection, base: Surroundings, script: Script) -> Surroundings:
    """Add sizes, indexes and columns of the tables that the script names, and all INVALID indexes."""
    names = sorted(tables(script))
    rows = _query(conn, "lint_tables", {"names": [_identifier(name) for name in names]})
    known = {name: row for name, row in zip(names, rows, strict=True) if row[0] is not None}
    return Surroundings(
        rows=_keyed({name: float(row[0]) for name, row in known.items()}),
        sizes_bytes=_keyed({name: int(row[1]) for name, row in known.items()}),
        indexes=_keyed({n: frozenset(tuple(i) for i in row[2]) for n, row in known.items()}),
        not_null=_keyed({name: frozenset(row[3]) for name, row in known.items()}),
        column_types=_keyed({name: row[4] for name, row in known.items()}),
        invalid_indexes=frozenset(_both(name for (name,) in _query(conn, "lint_invalid", None))),
        projections=base.projections | _projections(conn),
        append_only=base.append_only,
        lock_timeout_ms=base.lock_timeout_ms,
        statement_timeout_ms=base.statement_timeout_ms,
    )


def tables(script: Script) -> frozenset[str]:
    """Every relation that the script names."""
    return frozenset(
        qualified(node)
        for statement in script.statements
        for node in nodes(statement.node)
        if isinstance(node, ast.RangeVar) and node.relname
    )


def _projections(conn: Connection) -> frozenset[str]:
    found = conn.execute("SELECT to_regclass('migrator.build')").fetchone()
    if found is None or found[0] is None:
        return frozenset()
    query = "SELECT target_schema, table_name FROM migrator.build WHERE state = 'live'"
    return frozenset(_both(f"{schema}.{table}" for schema, table in conn.execute(query)))


def _identifier(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))


def _both(names: Iterable[str]) -> Iterable[str]:
    """Each name as it is, and as it is compared."""
    for name in names:
        yield name
        yield key(name)


def _keyed(values: dict[str, Any]) -> dict[str, Any]:
    return {each: value for name, value in values.items() for each in _both([name])}


def _query(conn: Connection, name: str, parameters: dict[str, Any] | None) -> list[Any]:
    query = files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
    return conn.execute(query, parameters).fetchall()
