"""Compare the live database with the project's metadata, by Alembic's own comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext

from migrator.migrations import session
from migrator.postgres import ledger
from migrator.postgres.connect import Connection
from migrator.settings import Settings

# Named CHECKs are compared by an extension of Alembic's that is not on by itself.
PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]


@dataclass(frozen=True)
class Check:
    """A CHECK that is there: it goes with any of its columns, and nothing else would bring it back."""

    schema: str | None
    table: str
    name: str
    columns: frozenset[str]
    definition: str


@dataclass(frozen=True)
class Difference:
    """What would bring the database to the metadata, in order; and what the catalog has of it."""

    operations: tuple[ops.MigrateOperation, ...]
    context: MigrationContext
    partitioned: frozenset[tuple[str | None, str]]
    types: frozenset[str]
    checks: tuple[Check, ...]


def compare(settings: Settings, connection: sa.Connection, metadata: sa.MetaData) -> Difference:
    """Compare without writing. Tables of projections, of migrator and of extensions do not count."""
    conn = session.driver(connection)
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    default = _one(conn, "SELECT current_schema()")
    excluded = _not_of_migrations(conn)
    schemas = {table.schema for table in metadata.tables.values()} | {None}

    def include_name(name: str | None, type_: str, _parents: Any) -> bool:
        return type_ != "schema" or name in schemas

    def include_object(
        found: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
    ) -> bool:
        if type_ == "table":
            return (found.schema or default, name) not in excluded
        # A CHECK that the metadata does not name may be there on purpose; it is never dropped.
        return not (type_ == "check_constraint" and reflected and compare_to is None)

    options: dict[str, Any] = {
        "version_table": settings.migrations.version_table,
        "version_table_schema": settings.migrations.version_table_schema,
        "target_metadata": metadata,
        "include_schemas": len(schemas) > 1,
        "include_name": include_name,
        "include_object": include_object,
        "autogenerate_plugins": PLUGINS,
    }
    context = MigrationContext.configure(connection, opts=options)
    script = produce_migrations(context, metadata)
    assert script.upgrade_ops is not None
    return Difference(
        operations=tuple(_flat(script.upgrade_ops)),
        context=context,
        partitioned=_partitioned(conn, default),
        types=frozenset(_column(conn, "SELECT typname::text FROM pg_type WHERE typtype = 'e'")),
        checks=_checks(conn, default),
    )


def _flat(container: ops.OpContainer) -> Iterator[ops.MigrateOperation]:
    for operation in container.ops:
        if isinstance(operation, ops.OpContainer):
            yield from _flat(operation)
        else:
            yield operation


def _not_of_migrations(conn: Connection) -> set[tuple[str, str]]:
    query = files("migrator.postgres").joinpath("sql/not_of_migrations.sql").read_bytes()
    found = {(schema, table) for schema, table in conn.execute(query).fetchall()}
    if ledger.exists(conn):
        builds = "SELECT target_schema, table_name FROM migrator.build WHERE state <> 'aborted'"
        found |= {(schema, table) for schema, table in conn.execute(builds).fetchall()}
    return found


def _partitioned(conn: Connection, default: str | None) -> frozenset[tuple[str | None, str]]:
    rows = conn.execute(
        "SELECT relnamespace::regnamespace::text, relname::text FROM pg_class WHERE relkind = 'p'"
    ).fetchall()
    return frozenset((None if schema == default else schema, table) for schema, table in rows)


def _checks(conn: Connection, default: str | None) -> tuple[Check, ...]:
    rows = conn.execute(
        """SELECT nullif(n.nspname, %s)::text, t.relname::text, c.conname::text,
                  (SELECT array_agg(a.attname::text) FROM pg_attribute AS a
                   WHERE a.attrelid = t.oid AND a.attnum = ANY (c.conkey)),
                  pg_get_constraintdef(c.oid)
           FROM pg_constraint AS c
           JOIN pg_class AS t ON t.oid = c.conrelid
           JOIN pg_namespace AS n ON n.oid = t.relnamespace
           WHERE c.contype = 'c' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           ORDER BY t.oid, c.conname""",
        (default,),
    ).fetchall()
    return tuple(
        Check(schema, table, name, frozenset(columns or ()), definition)
        for schema, table, name, columns, definition in rows
    )


def _column(conn: Connection, query: str) -> list[Any]:
    return [value for (value,) in conn.execute(query.encode()).fetchall()]


def _one(conn: Connection, query: str) -> Any:
    return _column(conn, query)[0]
