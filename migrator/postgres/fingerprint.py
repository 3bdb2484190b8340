"""What a table's rows are, as numbers that can be compared: how many, and checksums of each column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class Fingerprint:
    """The rows of one table, in no order: their number, a checksum of whole rows, one of each column."""

    rows: int
    whole: int
    columns: Mapping[str, int]


Columns = Mapping[str, Collection[str]]


def tables(conn: Connection, *, left_out: Collection[str] = ()) -> dict[str, list[str]]:
    """Every table with rows of its own, as schema.table in quoted form, with its columns; read-only.

    Generated columns are left out, as are the tables of the system and of migrator.
    """
    rows = conn.execute(
        """SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                  array_agg(a.attname::text ORDER BY a.attname)
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE c.relkind = 'r' AND a.attgenerated = ''
             AND n.nspname NOT IN ('migrator', 'information_schema')
             AND n.nspname !~ '^(pg_|migrator_build_)'
           GROUP BY n.nspname, c.relname""",
    ).fetchall()
    return {name: columns for name, columns in rows if name not in left_out}


def read(conn: Connection, wanted: Columns) -> dict[str, Fingerprint]:
    """Read the named columns of the named tables, each table once; read-only.

    A table that is not there, or that the role may not read, has no fingerprint. The names are
    schema.table in quoted form, as `tables` gives them.
    """
    there = tables(conn)
    found = {}
    for name, columns in wanted.items():
        kept = [column for column in there.get(name, ()) if column in columns]
        if name in there:
            try:
                with conn.transaction():
                    found[name] = _of(conn, name, kept)
            except psycopg.errors.InsufficientPrivilege:
                continue
    return found


def _of(conn: Connection, name: str, columns: list[str]) -> Fingerprint:
    texts = [sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns]
    whole = sql.SQL("ROW({})::text").format(sql.SQL(", ").join(texts))
    sums = [
        sql.SQL("coalesce(sum(hashtextextended({}, 0)), 0)").format(each)
        for each in (whole, *texts)
    ]
    query = sql.SQL("SELECT count(*), {} FROM ONLY {}").format(
        sql.SQL(", ").join(sums),
        sql.SQL(name),
    )
    row = conn.execute(query).fetchone()
    assert row is not None
    rows, all_of_it, *each = row
    return Fingerprint(rows, int(all_of_it), dict(zip(columns, map(int, each), strict=True)))


def lost(before: Mapping[str, Fingerprint], after: Mapping[str, Fingerprint]) -> list[str]:
    """What of before is not the same after, as table or table.column; pure.

    A table that is not there any more is named whole, as is one whose rows are not as many.
    """
    found = []
    for name, one in before.items():
        other = after.get(name)
        if other is None or other.rows != one.rows:
            found.append(name)
            continue
        differing = [c for c, checksum in one.columns.items() if other.columns.get(c) != checksum]
        found += [f"{name}.{column}" for column in differing]
        if not differing and one.whole != other.whole:
            found.append(name)
    return found
