"""Compare a loaded build with the live one of its projection, at equal offsets; read-only.

Both positions and both tables are read in one snapshot, so that rows and offsets agree whatever moves
live meanwhile. What only one of the two has read lies between their positions: the keys that these
events touch are left out. The other keys must be alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import touched
from migrator.projections.build import Build
from migrator.projections.definition import Definition
from migrator.projections.diff_columns import Columns, NotCompared, paired
from migrator.projections.diff_sql import SETTINGS, Queries
from migrator.projections.touched import Touched

if TYPE_CHECKING:
    from migrator.settings import Settings

Kind = Literal["missing", "extra", "changed"]


@dataclass(frozen=True)
class Difference:
    """A key that differs: live has it and the shadow has not, the other way round, or its values do.

    Values are PostgreSQL's text, cut at 200 characters; `columns` has those that differ, by the
    shadow's name: live's value and the shadow's.
    """

    kind: Kind
    key: dict[str, str]
    columns: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Diff:
    """What the comparison of a shadow with live found.

    `keys` were compared, of either table; `left_out` were not, as `events_between` touch them.
    `changed_columns` counts the changed keys that differ in each column; `first` are the first keys in
    their order. `buckets` is how many of 1024 were looked into; None where all rows were compared at once.
    `as_type` has the columns whose type has changed, and what both were compared as.
    """

    live: int
    shadow: int
    live_rows: int
    shadow_rows: int
    keys: int
    missing: int
    extra: int
    changed: int
    changed_columns: dict[str, int]
    first: tuple[Difference, ...]
    left_out: int
    events_between: int
    buckets: int | None
    renamed: dict[str, str]
    as_type: dict[str, str]
    only_live: tuple[str, ...]
    only_shadow: tuple[str, ...]
    not_compared: dict[str, str]
    seconds: float

    @property
    def differing(self) -> int:
        return self.missing + self.extra + self.changed


@dataclass(frozen=True)
class _Counts:
    live_rows: int
    shadow_rows: int
    missing: int = 0
    extra: int = 0
    changed: int = 0
    by_column: tuple[int, ...] = ()

    @classmethod
    def of(cls, row: tuple[Any, ...] | None) -> _Counts:
        assert row is not None
        live_rows, shadow_rows, missing, extra, changed, *by_column = row
        return cls(live_rows, shadow_rows, missing, extra, changed, tuple(by_column))


def compare(
    conn: Connection,
    settings: Settings,
    build: Build,
    definition: Definition,
    renamed: Mapping[str, str] | None = None,
) -> Diff:
    """Compare a loaded build with the live build of its projection; read-only.

    Exact while a projector moves live, as long as it commits rows and positions together. `conn` is in
    autocommit mode; one REPEATABLE READ transaction stays open throughout. `renamed` maps names of
    live's columns to the shadow's.

    Raises:
        NotCompared: there is no live build, or the two cannot be compared; the text says why.
        MigratorError: the log cannot be read.
    """
    began = time.perf_counter()
    with conn.transaction():
        conn.execute(";\n".join(SETTINGS).encode())
        live = next(iter(builds.find(conn, build.projection, ["live"])), None)
        if live is None:
            raise NotCompared("nothing is live yet")
        columns = paired(conn, live.target, build.table, renamed or {})
        left_out = _left_out(conn, settings, build, live, definition)
        queries = Queries(live.target, build.table, columns, touched.by_column(left_out))
        try:
            by_buckets = (build.rows or 0) > settings.projections.diff_join_rows
            counts, within = _counted(conn, queries, by_buckets=by_buckets)
            first = _first(conn, queries, columns, counts, within, settings.projections.diff_shown)
        except psycopg.Error as exc:
            raise _cannot(exc, conn.info.user) from exc
    return Diff(
        live=live.build,
        shadow=build.build,
        live_rows=counts.live_rows,
        shadow_rows=counts.shadow_rows,
        keys=counts.shadow_rows + counts.missing,
        missing=counts.missing,
        extra=counts.extra,
        changed=counts.changed,
        changed_columns={
            pair.name: number
            for pair, number in zip(columns.values, counts.by_column, strict=False)
            if number
        },
        first=first,
        left_out=len(left_out.keys),
        events_between=left_out.events,
        buckets=None if within is None else len(within),
        renamed={pair.live: pair.shadow for pair in columns.pairs if pair.live != pair.shadow},
        as_type={pair.name: pair.cast for pair in columns.pairs if pair.was != pair.now},
        only_live=columns.only_live,
        only_shadow=columns.only_shadow,
        not_compared=columns.not_compared,
        seconds=round(time.perf_counter() - began, 3),
    )


def _left_out(
    conn: Connection, settings: Settings, build: Build, live: Build, definition: Definition
) -> Touched:
    gaps = touched.between(builds.positions(conn, build.build), builds.positions(conn, live.build))
    most = settings.projections.diff_max_touched
    return touched.keys_touched(settings, definition, gaps, most)


def _counted(
    conn: Connection, queries: Queries, *, by_buckets: bool
) -> tuple[_Counts, list[int] | None]:
    """The numbers, and the buckets that they were found in; None for all rows at once."""
    if not by_buckets:
        return _Counts.of(conn.execute(queries.counts()).fetchone()), None
    summed = conn.execute(queries.buckets()).fetchone()
    assert summed is not None
    live_rows, shadow_rows, within = summed
    if not within:
        return _Counts(live_rows, shadow_rows), within
    counts = _Counts.of(conn.execute(queries.counts(within)).fetchone())
    return replace(counts, live_rows=live_rows, shadow_rows=shadow_rows), within


def _first(
    conn: Connection,
    queries: Queries,
    columns: Columns,
    counts: _Counts,
    within: Sequence[int] | None,
    shown: int,
) -> tuple[Difference, ...]:
    if not counts.missing + counts.extra + counts.changed:
        return ()
    rows = conn.execute(queries.first(shown, within)).fetchall()
    return tuple(_difference(columns, kind, rest) for kind, *rest in rows)


def _difference(columns: Columns, kind: Kind, rest: Sequence[Any]) -> Difference:
    keys, values = rest[: len(columns.keys)], rest[len(columns.keys) :]
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return Difference(
        kind,
        {pair.name: key for pair, key in zip(columns.keys, keys, strict=True)},
        {
            pair.name: (live, shadow)
            for pair, (differs, live, shadow) in zip(columns.values, triples, strict=True)
            if kind == "changed" and differs
        },
    )


def _cannot(exc: psycopg.Error, role: str) -> Exception:
    """A policy that hides rows, or a value that the other's type does not take: said, not guessed."""
    said = exc.diag.message_primary or str(exc)
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return NotCompared(f"role {role} does not see every row: {said}")
    if isinstance(exc, psycopg.DataError):
        return NotCompared(f"a value of live does not fit the new type: {said}")
    return exc
