"""The reference: one event at a time, its row loaded, folded and written back by SQLAlchemy.

It shares nothing with the engine but the definitions: no batch, no generated code, no COPY.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from migrator.projections import shadow
from migrator.projections.definition import Definition
from tests.drawn import REDUCED, Record


class Row:
    """A row as a handler sees it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self.is_deleted = False

    def delete(self) -> None:
        self.is_deleted = True


class Live:
    """A table with its primary key in a schema of its own, kept event by event."""

    def __init__(self, conn: sa.Connection, definition: Definition, schema: str) -> None:
        self._conn = conn
        self._definition = definition
        self.table = definition.table.to_metadata(sa.MetaData(), schema=schema)
        self._columns = list(self.table.columns.items())
        conn.execute(sa.schema.CreateSchema(schema))
        for statement in (
            *shadow.create_statements(definition.table, schema),
            *shadow.load_statements(definition.table, schema),
        ):
            conn.exec_driver_sql(statement)

    def fold(self, record: Record) -> None:
        """Load the row of one event, fold the event into it, and write it back."""
        definition, event = self._definition, record.event
        if record.meta.type in definition.ignores:
            return
        key = self._key(record)
        is_key = sa.and_(
            *(column == value for column, value in zip(self.table.primary_key, key, strict=True))
        )
        found = self._conn.execute(sa.select(self.table).where(is_key)).mappings().first()
        row = Row(dict(found) if found else self._fresh(key))
        handler = definition.handlers.get(record.meta.type)
        if handler is None:
            assert event is None, "a tombstone that no handler takes"
            row.delete()
        elif handler.takes_meta:
            handler.function(row, event, record.meta)
        else:
            handler.function(row, event)
        self._conn.execute(sa.delete(self.table).where(is_key))
        if not row.is_deleted:
            self.insert({name: getattr(row, name) for name, _ in self._columns})

    def insert(self, values: dict[str, Any]) -> None:
        self._conn.execute(sa.insert(self.table).values(values))

    def reduce(self, records: Iterable[Record]) -> None:
        """Where the columns are reducers: what each is of all of a key's events, said naively."""
        handled = [r for r in records if r.meta.type in self._definition.handlers]
        by_key: dict[Any, list[Any]] = {}
        for record in handled:
            by_key.setdefault(self._key(record), []).append((record.event, record.meta))
        for key, seen in by_key.items():
            with decimal.localcontext(prec=1000):
                values = {
                    each.column.name: REDUCED[each.column.name].naive(
                        [s for s in seen if type(s[0]) in REDUCED[each.column.name].events]
                    )
                    for each in self._definition.reduced
                }
            self.insert({**self._fresh(key), **values})

    def _key(self, record: Record) -> tuple[Any, ...]:
        definition = self._definition
        if definition.key is None:
            assert definition.parse_key is not None
            return (definition.parse_key(record.raw_key),)
        found = definition.key(record.event)
        return found if isinstance(found, tuple) else (found,)

    def _fresh(self, key: tuple[Any, ...]) -> dict[str, Any]:
        values = {
            column.name: None
            if column.default is None
            else column.default.arg(None)
            if column.default.is_callable
            else column.default.arg
            for column in self.table.columns
        }
        return values | {
            column.name: value for column, value in zip(self.table.primary_key, key, strict=True)
        }
