"""Apply records to the rows of one build that stand in a table, and move its positions with them.

The engine behind `follow`, behind the end of a swap, and behind the catch-up of a build that readers do
not see: the same fold as a rebuild's, over the rows of a batch's keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from confluent_kafka import Message
from psycopg import sql

from migrator.errors import Refused, RowRefused
from migrator.postgres import catalog
from migrator.postgres.connect import Connection
from migrator.postgres.copy import row_values
from migrator.projections import writers
from migrator.projections.build import Build
from migrator.projections.definition import Definition
from migrator.projections.keyed import KeyedRows
from migrator.projections.partition import PartitionFold
from migrator.projections.upsert import Upsert
from migrator.projections.writers import Advance
from migrator.settings import Topic

_encode = msgspec.json.Encoder().encode


class Applier:
    """Applies batches to one build's rows in `table`: its own before it is live, or its target.

    `topics` say how the records of each are to be read. It keeps nothing from one batch to the next.
    """

    def __init__(
        self,
        conn: Connection,
        topics: Mapping[str, Topic],
        build: Build,
        definition: Definition,
        table: sql.Identifier,
    ) -> None:
        self._conn = conn
        self._build = build
        self._partition = PartitionFold(topics, [definition])
        (self._fold,) = self._partition.folds
        self._rows = KeyedRows(conn, table, self._fold)
        self._upsert = Upsert(conn, build, definition, table)
        self._values = row_values(definition.columns)
        self._before: dict[Hashable, bytes] = {}
        if not definition.reduced:
            self._fold.fetch = self._fetch
        elif definition.keeps_state:
            self._refuse_without_state(definition)

    def apply(self, records: Sequence[Message], moves: Sequence[Advance]) -> None:
        """Fold the records in their order and move the positions, in the caller's transaction.

        The caller's transaction is READ COMMITTED and shares the projection's lock (`writers`), or
        has it alone. Records may be of several partitions, each in the log's order. Where it raises,
        the transaction must not be committed; nothing is left in memory.

        Raises:
            Overtaken: another projector has moved a position; nothing was written.
            MigratorError: a record cannot be decoded or folded; its data say where it lies.
            Refused: no handler takes an event's type.
            RowRefused: the table does not take a row of the batch; which one is not said.
        """
        writers.advance(self._conn, self._build.build, moves)
        try:
            self._partition.apply(records)
            self._write()
        finally:
            self._partition.forget()
            self._before.clear()

    def _write(self) -> None:
        rows, before = self._fold.rows, self._before
        gone = [key for key in before if key not in rows]
        changed = [row for key, row in rows.items() if before.get(key) != self._encoded(row)]
        with self._explained():
            if gone:
                self._rows.delete(gone)
            if changed:
                self._upsert.write(changed)

    def _fetch(self, keys: Iterable[Hashable]) -> None:
        with self._explained():
            for key, row in self._rows.fetch(keys):
                self._fold.rows[key] = row
                self._before[key] = self._encoded(row)

    def _encoded(self, row: Any) -> bytes:
        """The row's values as they are written; a handler may change those that a row holds."""
        return _encode(self._values(row))

    def _refuse_without_state(self, definition: Definition) -> None:
        state = sql.Identifier(self._build.schema, definition.state.name)
        if catalog.table_oid(self._conn, state) is None:
            raise Refused(
                f"build {self._build.build} of {definition.name} has not kept what its columns are "
                "made of: an older release of migrator made it",
                expected=f"a table {state.as_string()}",
                next_step=f"migrator rebuild-projections --projection {definition.name}",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            said = exc.diag
            raise RowRefused(
                f"PostgreSQL does not take a row of {self._build.projection}: {said.message_primary}",
                expected="after every event, values that the table's columns and constraints take",
                next_step="correct the projection, then rebuild it",
                detail=said.message_detail,
            ) from exc
