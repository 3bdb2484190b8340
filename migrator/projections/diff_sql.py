"""The SQL that compares two tables: pure.

Within a query key columns are k0, k1, ... and the others c0, c1, ..., of whatever spelling theirs is.
Values are written as literals: beside parameters, a percent sign in a name would be one, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from migrator.projections.diff_columns import Columns, Pair

BUCKETS = 1024
SHOWN_CHARACTERS = 200

# What the text of a value depends on, and that a policy may not hide rows from us.
SETTINGS = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SET LOCAL row_security = off",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
)


class Queries:
    """The queries over one pair of tables, without the `touched` keys: a list a column of the key.

    `within` narrows a query to some buckets.
    """

    def __init__(
        self,
        live: sql.Identifier,
        shadow: sql.Identifier,
        columns: Columns,
        touched: Sequence[Sequence[Any]] = (),
    ) -> None:
        self._live, self._shadow = live, shadow
        self._columns = columns
        self._touched = touched
        self._keys = [f"k{n}" for n in range(len(columns.keys))]
        self._values = [f"c{n}" for n in range(len(columns.values))]

    def buckets(self) -> sql.Composed:
        """One row: rows of live, rows of the shadow, and the buckets that are not alike.

        bit_xor alone would not see two rows that are both there twice; count and sum do.
        """
        return sql.SQL(
            """WITH l AS ({live}), s AS ({shadow}),
            compared AS (SELECT bucket, coalesce(l.rows, 0) AS l, coalesce(s.rows, 0) AS s,
                            (l.rows, l.sum, l.xor) IS DISTINCT FROM (s.rows, s.sum, s.xor) AS differs
                     FROM l FULL JOIN s USING (bucket))
            SELECT coalesce(sum(l), 0)::bigint, coalesce(sum(s), 0)::bigint,
                   coalesce(array_agg(bucket) FILTER (WHERE differs), '{{}}') FROM compared"""
        ).format(live=self._summed(is_live=True), shadow=self._summed(is_live=False))

    def counts(self, within: Sequence[int] | None = None) -> sql.Composed:
        """One row: rows of live and of the shadow, missing, extra, changed, and changed by column."""
        by_column = [
            sql.SQL(", count(*) FILTER (WHERE changed AND l_{0} IS DISTINCT FROM s_{0})").format(
                sql.SQL(name)
            )
            for name in self._values
        ]
        return sql.SQL(
            """SELECT count(in_live), count(in_shadow),
                      count(*) FILTER (WHERE in_shadow IS NULL),
                      count(*) FILTER (WHERE in_live IS NULL),
                      count(*) FILTER (WHERE changed){} FROM ({} OFFSET 0) AS compared"""
        ).format(sql.Composed(by_column), self._joined(within))

    def first(self, shown: int, within: Sequence[int] | None = None) -> sql.Composed:
        """The first keys that differ, in their order: kind, key columns, and per column three values.

        These are: whether it differs, live's value and the shadow's, as text.
        """
        texts = [
            sql.SQL(
                ", l_{0} IS DISTINCT FROM s_{0}, left(l_{0}::text, {1}), left(s_{0}::text, {1})"
            ).format(sql.SQL(name), sql.Literal(SHOWN_CHARACTERS))
            for name in self._values
        ]
        return sql.SQL(
            """SELECT CASE WHEN in_shadow IS NULL THEN 'missing' WHEN in_live IS NULL THEN 'extra'
                           ELSE 'changed' END, {keys}{texts}
               FROM ({joined} OFFSET 0) AS compared
               WHERE in_shadow IS NULL OR in_live IS NULL OR changed
               ORDER BY {order} LIMIT {shown}"""
        ).format(
            keys=sql.SQL(", ").join(sql.SQL(f"{key}::text") for key in self._keys),
            texts=sql.Composed(texts),
            joined=self._joined(within),
            order=self._list(self._keys),
            shown=sql.Literal(shown),
        )

    def _joined(self, within: Sequence[int] | None) -> sql.Composed:
        """Every key of both tables, with the values of both."""
        keys = [sql.SQL("coalesce(l.{0}, s.{0}) AS {0}").format(sql.SQL(k)) for k in self._keys]
        values = [
            sql.SQL("l.{0} AS l_{0}, s.{0} AS s_{0}").format(sql.SQL(name)) for name in self._values
        ]
        changed = sql.SQL(" OR ").join(
            sql.SQL("l.{0} IS DISTINCT FROM s.{0}").format(sql.SQL(name)) for name in self._values
        )
        return sql.SQL(
            """SELECT l.here AS in_live, s.here AS in_shadow,
                      coalesce(l.here AND s.here AND ({changed}), false) AS changed, {columns}
               FROM ({live}) AS l FULL JOIN ({shadow}) AS s ON {on}"""
        ).format(
            changed=changed if self._values else sql.SQL("false"),
            columns=sql.SQL(", ").join([*keys, *values]),
            live=self._rows(is_live=True, within=within),
            shadow=self._rows(is_live=False, within=within),
            on=sql.SQL(" AND ").join(
                sql.SQL("l.{0} = s.{0}").format(sql.SQL(key)) for key in self._keys
            ),
        )

    def _rows(self, *, is_live: bool, within: Sequence[int] | None) -> sql.Composed:
        """One table's rows under the names of the query, without the keys that are left out."""
        columns = [*self._columns.keys, *self._columns.values]
        names = [*self._keys, *self._values]
        conditions = []
        if self._touched:
            conditions.append(self._not_touched(is_live=is_live))
        if within is not None:
            keys = [_read(pair, is_live=is_live) for pair in self._columns.keys]
            conditions.append(
                sql.SQL("{} = ANY({})").format(_bucket(keys), sql.Literal(list(within)))
            )
        return sql.SQL("SELECT true AS here, {} FROM {} AS t{}").format(
            sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(_read(pair, is_live=is_live), sql.SQL(name))
                for pair, name in zip(columns, names, strict=True)
            ),
            self._live if is_live else self._shadow,
            sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL(""),
        )

    def _not_touched(self, *, is_live: bool) -> sql.Composed:
        arrays = sql.SQL(", ").join(
            sql.SQL("{}::{}[]").format(sql.Literal(list(values)), sql.SQL(pair.now))
            for values, pair in zip(self._touched, self._columns.keys, strict=True)
        )
        same = sql.SQL(" AND ").join(
            sql.SQL("touched.{}::{} = {}").format(
                sql.SQL(key), sql.SQL(pair.cast), _read(pair, is_live=is_live)
            )
            for key, pair in zip(self._keys, self._columns.keys, strict=True)
        )
        return sql.SQL("NOT EXISTS (SELECT FROM unnest({}) AS touched ({}) WHERE {})").format(
            arrays, self._list(self._keys), same
        )

    def _summed(self, *, is_live: bool) -> sql.Composed:
        rows = self._rows(is_live=is_live, within=None)
        # OFFSET 0: flattened, the hash would be computed once for each of its uses.
        return sql.SQL(
            """SELECT bucket, count(*) AS rows, sum(hash) AS sum, bit_xor(hash) AS xor
               FROM (SELECT {bucket} AS bucket, hash_record_extended(ROW({all}), 0) AS hash
                     FROM ({rows}) AS r OFFSET 0) AS hashed
               GROUP BY bucket"""
        ).format(
            bucket=_bucket([sql.SQL(key) for key in self._keys]),
            all=self._list([*self._keys, *self._values]),
            rows=rows,
        )

    def _list(self, names: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.SQL, names))


def _read(pair: Pair, *, is_live: bool) -> sql.Composed:
    """A column of one of the tables, as the type that both are compared as."""
    name = sql.Identifier("t", pair.live if is_live else pair.shadow)
    return sql.SQL("{}::{}").format(name, sql.SQL(pair.cast))


def _bucket(keys: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("(hash_record_extended(ROW({}), 0) & {})::int").format(
        sql.SQL(", ").join(keys), sql.Literal(BUCKETS - 1)
    )
