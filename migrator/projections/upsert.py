"""Write what a batch has changed into a table of rows: by COPY to a temporary table, and from there.

Folded rows replace those that are there. What reducers make of a batch alone is joined to what is
there, by PostgreSQL, so that two projectors may write the same key at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from psycopg import sql

from migrator.postgres.connect import Connection
from migrator.postgres.copy import copy_rows
from migrator.projections import shadow
from migrator.projections.build import Build
from migrator.projections.definition import Definition, Reduced
from migrator.projections.keyed import names


class Upsert:
    """Writes batches of one build's rows to `table`, in the caller's transaction.

    The temporary table is emptied at each commit, and made where this session has none: a pooler may
    hand out another one with each transaction.
    """

    def __init__(
        self, conn: Connection, build: Build, definition: Definition, table: sql.Identifier
    ) -> None:
        self._conn = conn
        self._definition = definition
        self._staged = sql.Identifier("pg_temp", f"migrator_batch_{build.build}")
        types = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_))
            for name, type_ in shadow.type_names(definition.state).items()
        ]
        self._prepared = sql.SQL(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {0} ({1}) ON COMMIT DELETE ROWS; DELETE FROM {0}"
        ).format(self._staged, sql.SQL(", ").join(types))
        self._statement = _statement(build, definition, self._staged, table)

    def write(self, rows: Iterable[Any]) -> None:
        """Write the rows, as the fold has them, over those of the same keys or joined to them."""
        self._conn.execute(self._prepared)
        columns = self._definition.columns
        copy_rows(self._conn, self._staged, self._definition.state.columns.keys(), columns, rows)
        self._conn.execute(self._statement)


def _statement(
    build: Build, definition: Definition, staged: sql.Identifier, table: sql.Identifier
) -> sql.Composed:
    keys = [key.name for key in definition.table.primary_key]
    if not definition.reduced:
        columns = definition.table.columns.keys()
        return _insert(table, columns, _select(columns, staged), keys, _replacing(columns, keys))
    columns = [*keys, *(each.column.name for each in definition.reduced)]
    if not definition.keeps_state:
        rows = _select(columns, staged, keys)
        return _insert(table, columns, rows, keys, _joining(definition.reduced))
    state = sql.Identifier(build.schema, definition.state.name)
    held = definition.state.columns.keys()
    return sql.SQL("WITH merged AS ({} RETURNING {}) {}").format(
        _insert(state, held, _select(held, staged, keys), keys, _joining(definition.reduced)),
        sql.SQL(", ").join(sql.Identifier("held", name) for name in columns),
        _insert(
            table,
            columns,
            _select(columns, sql.Identifier("merged")),
            keys,
            _replacing(columns, keys),
        ),
    )


def _insert(
    table: sql.Identifier,
    columns: Iterable[str],
    rows: sql.Composed,
    keys: Iterable[str],
    changes: list[sql.Composed],
) -> sql.Composed:
    done = sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(changes)) if changes else None
    return sql.SQL("INSERT INTO {} AS held ({}) {} ON CONFLICT ({}) DO {}").format(
        table, names(columns), rows, names(keys), done or sql.SQL("NOTHING")
    )


def _select(
    columns: Iterable[str], source: sql.Identifier, order: Iterable[str] = ()
) -> sql.Composed:
    """Two projectors that write the same keys take their locks in one order."""
    rows = sql.SQL("SELECT {} FROM {}").format(names(columns), source)
    return sql.SQL("{} ORDER BY {}").format(rows, names(order)) if order else rows


def _replacing(columns: Iterable[str], keys: Iterable[str]) -> list[sql.Composed]:
    return [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("excluded", name))
        for name in columns
        if name not in keys
    ]


def _joining(reduced: Iterable[Reduced]) -> list[sql.Composed]:
    changes = []
    for each in reduced:
        held, more = (
            sa.table(alias, *(sa.column(c.name, c.type) for c in each.state)).columns
            for alias in ("held", "excluded")
        )
        joined = each.reducer.joined(list(held), list(more))
        changes += [
            sql.SQL("{} = {}").format(sql.Identifier(column.name), sql.SQL(shadow.text_of(value)))
            for column, value in zip(each.state, joined, strict=True)
        ]
    return changes
