"""Cut a table into pages by a unique key: which keys it has, and where a page begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from migrator.errors import Refused
from migrator.migrations.backfill import Backfill, trusted
from migrator.postgres import catalog
from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class Column:
    name: str
    type: str


@dataclass(frozen=True)
class Target:
    """The table as the catalog has it: the key that cuts its pages, and its rows by estimate."""

    key: tuple[Column, ...]
    rows_estimated: int | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.key)

    def literal(self, key: list[str]) -> sql.Composed:
        """A key's values, each with its type: `'7'::bigint, 'x'::text`."""
        return sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(text), trusted(column.type))
            for text, column in zip(key, self.key, strict=True)
        )


def target(conn: Connection, declared: Backfill) -> Target:
    """Find the table and the key that cuts its pages; read-only.

    Raises:
        Refused: there is no such table, or no unique key over not-null columns of those names.
    """
    oid = catalog.table_oid(conn, declared.name)
    if oid is None:
        raise Refused(
            f"backfill of {declared.table}: there is no such table",
            expected="a table that the search path finds, or schema.table; names are taken as written",
            next_step="correct the name, or put the revision after the one that creates the table",
        )
    query = files("migrator.postgres").joinpath("sql/keys.sql").read_bytes()
    known = [
        tuple(map(Column, names, types))
        for names, types in conn.execute(query, {"table": oid}).fetchall()
    ]
    for key in known:
        if not declared.key or tuple(column.name for column in key) == declared.key:
            return Target(key, _estimated(conn, oid))
    asked = f"no unique key ({', '.join(declared.key)})" if declared.key else "no unique key"
    have = "; ".join(", ".join(column.name for column in key) for key in known) or "none"
    raise Refused(
        f"backfill of {declared.table}: it has {asked} over not-null columns",
        expected=f"a primary key, or key= that names a unique one in its order; the table has: {have}",
        next_step="name one of them in key=, or build a unique index first",
        keys=[[column.name for column in key] for key in known],
    )


def first_page(conn: Connection, declared: Backfill) -> tuple[str, int | None]:
    """The SQL of the page that would come first, and the estimate of the rows; read-only.

    Raises:
        Refused: as `target`.
    """
    conn.execute("SET datestyle TO ISO")
    aim = target(conn, declared)
    query = bounds(declared, aim, after=None, end=None, batch=declared.batch)
    low, high, _ = one(conn.execute(query))
    if low is None:
        low = high = ["..."] * len(aim.key)
    statement = declared.statement(aim.names, aim.literal(low), aim.literal(high))
    return statement.as_string(conn), aim.rows_estimated


def bounds(
    declared: Backfill, aim: Target, *, after: list[str] | None, end: list[str] | None, batch: int
) -> sql.Composed:
    """Ask for a page's first key, last key and number of rows; nulls where none is left."""
    columns = sql.SQL(", ").join(map(sql.Identifier, aim.names))
    limits = [sql.SQL("true")]
    compared = sql.SQL("({})").format(columns) if len(aim.key) > 1 else columns
    for sign, key in ((">", after), ("<=", end)):
        if key is not None:
            row = aim.literal(key)
            row = sql.SQL("({})").format(row) if len(aim.key) > 1 else row
            limits.append(sql.SQL(f"{{}} {sign} {{}}").format(compared, row))  # type: ignore[arg-type]
    return sql.SQL(
        "WITH page AS MATERIALIZED (SELECT {columns} FROM {table} WHERE {limits} "
        "ORDER BY {columns} LIMIT {batch}) "
        "SELECT (SELECT {key} FROM page ORDER BY {columns} LIMIT 1), "
        "(SELECT {key} FROM page ORDER BY {descending} LIMIT 1), (SELECT count(*) FROM page)"
    ).format(
        columns=columns,
        table=declared.name,
        limits=sql.SQL(" AND ").join(limits),
        batch=sql.Literal(batch),
        key=as_json(aim),
        descending=ordered(aim, "DESC"),
    )


def ordered(aim: Target, direction: str) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(direction)) for name in aim.names
    )


def as_json(aim: Target) -> sql.Composed:
    """A key as a JSON array of texts, which its types take back exactly."""
    texts = (sql.SQL("{}::text").format(sql.Identifier(name)) for name in aim.names)
    return sql.SQL("jsonb_build_array({})").format(sql.SQL(", ").join(texts))


def _estimated(conn: Connection, oid: int) -> int | None:
    estimate: int | None
    (estimate,) = one(
        conn.execute(
            """SELECT sum(reltuples) FILTER (WHERE reltuples >= 0)::bigint FROM pg_class
               WHERE oid = %(table)s AND relkind = 'r'
                  OR oid IN (SELECT relid FROM pg_partition_tree(%(table)s::oid) WHERE isleaf)""",
            {"table": oid},
        )
    )
    return estimate


def one(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return row
