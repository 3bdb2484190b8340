"""What a fold has in PostgreSQL while its partition is being read: the rows that memory had no room for.

They lie in a table of their own beside the shadow, one a partition, so that the shadow is written once,
at the partition's end, and so that a key met in two partitions is still found. A spill empties the
memory; an event of a row that was spilled brings the row back.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from psycopg import sql
from rbloom import Bloom

from migrator.postgres.connect import Connection
from migrator.postgres.copy import copy_rows
from migrator.projections.fold import Fold
from migrator.projections.keyed import KeyedRows, names

# Past so many keys the filter says "perhaps" more often, which costs look-ups and nothing else.
MOST_EXPECTED = 20_000_000
FALSE_POSITIVES = 0.01


class Spill:
    """The spilled rows of one fold; none at first, and after a kill those of the run before.

    Every call is within the caller's transaction, or needs none.
    """

    def __init__(self, conn: Connection, schema: str, partition: int, fold: Fold) -> None:
        self._conn = conn
        self._fold = fold
        self._table = sql.Identifier(schema, f"migrator_spill_{partition}")
        self._shadow = sql.Identifier(schema, fold.definition.state.name)
        self._names = fold.definition.state.columns.keys()
        self._keys = [column.name for column in fold.definition.table.primary_key]
        self._rows = KeyedRows(conn, self._table, fold)
        self._taken: set[Hashable] = set()
        # Nothing is known of the keys that a run before has spilled: all are asked for.
        self._perhaps: Bloom | None = None
        self._exists = self._is_there()
        if self._exists:
            fold.fetch = self.fetch

    def _is_there(self) -> bool:
        found = self._conn.execute(
            "SELECT to_regclass(%s)", (self._table.as_string(self._conn),)
        ).fetchone()
        return found is not None and found[0] is not None

    def write(self, expected: int) -> None:
        """Write all rows and forget them; `expected` is how many events are still to come."""
        if not self._exists:
            self._create(expected)
        if self._taken:
            self._rows.delete(self._taken)
        rows = self._fold.rows
        copy_rows(
            self._conn, self._table, self._names, self._fold.definition.columns, rows.values()
        )
        if self._perhaps is not None:
            self._perhaps.update(rows)
        self._taken.clear()
        rows.clear()

    def _create(self, expected: int) -> None:
        self._conn.execute(
            sql.SQL("CREATE TABLE {} (LIKE {}, PRIMARY KEY ({}))").format(
                self._table, self._shadow, names(self._keys)
            )
        )
        self._perhaps = Bloom(min(max(expected, 1000), MOST_EXPECTED), FALSE_POSITIVES)
        self._exists = True
        self._fold.fetch = self.fetch

    def fetch(self, keys: Iterable[Hashable]) -> None:
        """Bring the rows of these keys back into memory, as far as they were spilled."""
        perhaps, rows, taken = self._perhaps, self._fold.rows, self._taken
        wanted = {key for key in keys if key not in rows and key not in taken}
        asked = [key for key in wanted if perhaps is None or key in perhaps]
        if not asked:
            return
        for key, row in self._rows.fetch(asked):
            rows[key] = row
            taken.add(key)

    def finish(self) -> int:
        """Move everything, spilled or not, into the shadow; returns how many rows that are."""
        fold = self._fold
        if not self._exists:
            copy_rows(
                self._conn, self._shadow, self._names, fold.definition.columns, fold.rows.values()
            )
            return len(fold.rows)
        self.write(0)
        moved = self._conn.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                self._shadow, names(self._names), names(self._names), self._table
            )
        )
        self._conn.execute(sql.SQL("DROP TABLE {}").format(self._table))
        return moved.rowcount
