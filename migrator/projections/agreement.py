"""Apply a sample by the engine that keeps live current, and compare its rows with the bulk fold's.

The live engine writes rows and reads them back between batches, so a value that PostgreSQL gives back as
another one (a Decimal that its column rounds) would make live drift from a rebuild. Nothing is kept:
temporary tables in a transaction that is rolled back.
"""

from __future__ import annotations

from psycopg import sql

from migrator.errors import MigratorError
from migrator.postgres.connect import Connection
from migrator.postgres.copy import copy_rows
from migrator.projections.apply import Applier
from migrator.projections.build import Build
from migrator.projections.definition import Definition
from migrator.projections.diff_columns import paired
from migrator.projections.diff_sql import Queries
from migrator.projections.diff_text import shown
from migrator.projections.keyed import names
from migrator.projections.purity import Twice
from migrator.projections.sampled import Sample
from migrator.projections.verdict import Judged, passed

BATCHES = 4
LIVE, BULK = (sql.Identifier("pg_temp", f"migrator_by_{engine}") for engine in ("live", "bulk"))


def agree(
    conn: Connection, build: Build, definition: Definition, sample: Sample | None, twice: Twice
) -> Judged:
    """Compare both engines' rows of a sample; changes nothing. `conn` is in autocommit mode.

    NOT NULL and other constraints are left out: whether a row keeps them in the middle of its events
    hangs on where batches end.
    """
    if sample is None or twice.fold is None:
        return Judged("skipped", "there is no event")
    if twice.judged.verdict == "failed":
        return Judged("skipped", "two folds of the bulk engine disagree already")
    if definition.reduced:
        return Judged("skipped", "its columns are reducers, which PostgreSQL itself joins")
    with conn.transaction(force_rollback=True):
        for table in (LIVE, BULK):
            _make(conn, table, build, definition)
        try:
            _apply(conn, build, definition, sample, twice)
        except MigratorError as exc:
            return passed(False, f"the live engine stops: {exc.found}")
        rows = twice.fold.rows
        columns = definition.columns
        copy_rows(conn, BULK, definition.table.columns.keys(), columns, rows.values())
        found = _first_difference(conn)
    told = f"{sample.told}, {len(rows):,} rows"
    if found is None:
        return passed(True, told, rows=len(rows))
    advice = "let the handler set what the column gives back, or widen the column"
    return passed(False, f"{found} ({told}); {advice}", rows=len(rows))


def _make(conn: Connection, table: sql.Identifier, build: Build, definition: Definition) -> None:
    keys = [column.name for column in definition.table.primary_key]
    conn.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {0} AS TABLE {1} WITH NO DATA; ALTER TABLE {0} ADD PRIMARY KEY ({2})"
        ).format(table, build.table, names(keys))
    )


def _apply(
    conn: Connection, build: Build, definition: Definition, sample: Sample, twice: Twice
) -> None:
    applier = Applier(conn, sample.topics, build, definition, LIVE)
    records = [r for r in sample.records if (r.topic(), r.offset()) not in twice.held]
    size = max(-(-len(records) // BATCHES), 1)
    for start in range(0, len(records), size):
        applier.apply(records[start : start + size], [])


def _first_difference(conn: Connection) -> str | None:
    columns = paired(conn, LIVE, BULK, {})
    queries = Queries(LIVE, BULK, columns)
    row = conn.execute(queries.first(1)).fetchone()
    if row is None:
        return None
    kind, *rest = row
    key = ", ".join(rest[: len(columns.keys)])
    if kind != "changed":
        return f"key {key} has a row by the {'live' if kind == 'missing' else 'bulk'} engine alone"
    values = rest[len(columns.keys) :]
    for pair, differs, live, bulk in zip(
        columns.values, values[::3], values[1::3], values[2::3], strict=True
    ):
        if differs:
            return f"{pair.name} of key {key} is {shown(live)} by the live engine, and {shown(bulk)} by the bulk one"
    return None
