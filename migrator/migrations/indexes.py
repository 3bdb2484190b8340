"""Indexes built CONCURRENTLY: an interrupted build leaves an INVALID one that blocks its name."""

from __future__ import annotations

from dataclasses import dataclass

from pglast import ast
from psycopg import sql

from migrator.errors import MigratorError
from migrator.migrations.retry import StillBuilding
from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class IndexName:
    """The index that a CREATE INDEX statement names, and the table it belongs on."""

    name: str
    table: str
    schema: str | None

    @property
    def table_name(self) -> sql.Identifier:
        return sql.Identifier(*filter(None, (self.schema, self.table)))


def built_by(statement: ast.Node) -> IndexName | None:
    """The index that the statement builds, or None where it builds none."""
    if not isinstance(statement, ast.IndexStmt):
        return None
    relation = statement.relation
    assert statement.idxname is not None
    assert relation is not None
    assert relation.relname is not None
    return IndexName(statement.idxname, relation.relname, relation.schemaname)


_FIND = """
SELECT i.oid, n.nspname, x.indisvalid, x.indrelid = t.oid,
       (SELECT p.pid FROM pg_stat_progress_create_index p WHERE p.index_relid = i.oid LIMIT 1)
FROM pg_class t
JOIN pg_class i ON i.relnamespace = t.relnamespace AND i.relname = %s
JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_index x ON x.indexrelid = i.oid
WHERE t.oid = to_regclass(%s)
"""


def clear_invalid(conn: Connection, index: IndexName) -> bool:
    """Drop the INVALID index that an interrupted run left under this name; True if there was one.

    The connection is in autocommit. A valid index, or none, is left alone.

    Raises:
        StillBuilding: the session of that run is alive on the server and still builds it.
    """
    row = conn.execute(_FIND, (index.name, index.table_name.as_string(conn))).fetchone()
    if row is None or row[2]:
        return False
    if row[4] is not None:
        raise StillBuilding(f"session {row[4]} is still building index {index.name}")
    name = sql.Identifier(row[1], index.name)
    conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
    return True


_LEFT = """
WITH named AS (SELECT c.oid, c.relname, c.relkind FROM pg_class c WHERE c.oid = to_regclass(%s))
SELECT n.nspname, i.relname,
       (SELECT p.pid FROM pg_stat_progress_create_index p WHERE p.relid = x.indrelid LIMIT 1)
FROM named
JOIN pg_index own ON named.oid IN (own.indexrelid, own.indrelid)
JOIN pg_index x ON x.indrelid = own.indrelid AND NOT x.indisvalid
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE i.relname ~ '_cc(new|old)[0-9]*$'
  AND (named.relkind = 'r'
       OR starts_with(named.relname, regexp_replace(i.relname, '_cc(new|old)[0-9]*$', '')))
GROUP BY n.nspname, i.relname, x.indrelid
"""


def clear_reindexed(conn: Connection, relation: ast.RangeVar) -> None:
    """Drop what an interrupted REINDEX CONCURRENTLY of this index or table left: *_ccnew, *_ccold.

    The connection is in autocommit. The index itself is whole: it serves until the new one is.

    Raises:
        StillBuilding: the session of that run is alive on the server and still builds.
    """
    assert relation.relname is not None
    name = sql.Identifier(*filter(None, (relation.schemaname, relation.relname)))
    for schema, left, pid in conn.execute(_LEFT, (name.as_string(conn),)).fetchall():
        if pid is not None:
            raise StillBuilding(f"session {pid} is still rebuilding {relation.relname}")
        dropped = sql.Identifier(schema, left)
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(dropped))


def is_valid(conn: Connection, index: IndexName) -> bool:
    """Whether there is a VALID index of that name on its table."""
    row = conn.execute(_FIND, (index.name, index.table_name.as_string(conn))).fetchone()
    return row is not None and bool(row[2] and row[3])


def require_valid(conn: Connection, index: IndexName) -> None:
    """Verify that the index is there, VALID, and on its table.

    Raises:
        MigratorError: it is not: IF NOT EXISTS has skipped over something else of that name.
    """
    row = conn.execute(_FIND, (index.name, index.table_name.as_string(conn))).fetchone()
    if row is None:
        found = f"there is no index {index.name} beside table {index.table}"
    elif not row[2]:
        found = f"index {index.name} is INVALID after it was built"
    elif not row[3]:
        found = f"index {index.name} exists already, on another table than {index.table}"
    else:
        return
    raise MigratorError(
        found,
        expected=f"a valid index {index.name} on {index.table}",
        next_step=r"look at it with \d in psql; drop it, or give the new one another name",
        index=index.name,
    )
