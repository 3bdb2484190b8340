"""The rows of a fold that lie in a table of PostgreSQL, found and deleted by their keys, many at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from psycopg import sql

from migrator.postgres.connect import Connection
from migrator.projections.fold import Fold


class KeyedRows:
    """A table with the columns of a fold's state. Every call is one statement."""

    def __init__(self, conn: Connection, table: sql.Identifier, fold: Fold) -> None:
        self._conn = conn
        self._table = table
        self._fold = fold
        self._names = fold.definition.state.columns.keys()
        self._keys = [column.name for column in fold.definition.table.primary_key]

    def fetch(self, keys: Iterable[Hashable]) -> Iterator[tuple[Hashable, Any]]:
        """The keys that have a row here, each with its row as handlers see it."""
        asked = [key for key in keys if self._is_possible(key)]
        if not asked:
            return
        found = self._conn.execute(
            sql.SQL(
                "SELECT k.migrator_n, {} FROM {} WITH ORDINALITY AS k ({}, migrator_n) JOIN {} s ON {}"
            ).format(
                sql.SQL(", ").join(sql.Identifier("s", name) for name in self._names),
                self._unnested,
                names(self._keys),
                self._table,
                sql.SQL(" AND ").join(
                    sql.SQL("s.{0} = k.{0}").format(sql.Identifier(name)) for name in self._keys
                ),
            ),
            self._columns_of(asked),
        )
        for number, *values in found:
            yield asked[number - 1], self._fold.restored(values)

    def delete(self, keys: Iterable[Hashable]) -> None:
        """Delete the rows of these keys, as far as there are any."""
        self._conn.execute(
            sql.SQL("DELETE FROM {} WHERE ({}) IN (SELECT * FROM {})").format(
                self._table, names(self._keys), self._unnested
            ),
            self._columns_of(list(keys)),
        )

    def _is_possible(self, key: Hashable) -> bool:
        """Whether the table could have such a key: a text without NUL, in UTF-8."""
        try:
            values = self._fold.key_values(key)
        except UnicodeDecodeError:
            return False
        return not any(isinstance(value, str) and "\x00" in value for value in values)

    @cached_property
    def _unnested(self) -> sql.Composed:
        """The keys as a relation: one array a column of the primary key."""
        # Without a length, to which a cast would cut a value; regtype's name of char(n) means char(1).
        found = self._conn.execute(
            """SELECT attname, format_type(atttypid, -1) FROM pg_attribute
               WHERE attrelid = %s::regclass AND attname = ANY(%s)""",
            (self._table.as_string(self._conn), self._keys),
        ).fetchall()
        types: dict[str, str] = dict(found)
        arrays = [sql.SQL("%s::{}[]").format(sql.SQL(types[name])) for name in self._keys]
        return sql.SQL("unnest({})").format(sql.SQL(", ").join(arrays))

    def _columns_of(self, keys: Sequence[Hashable]) -> list[list[Any]]:
        values = [self._fold.key_values(key) for key in keys]
        return [[value[n] for value in values] for n in range(len(self._keys))]


def names(identifiers: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, identifiers))
