"""Check a loaded build before anybody may read it; each check passes or fails, with its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from migrator.errors import MigratorError, Refused
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import quarantine
from migrator.projections.build import Build
from migrator.projections.definition import Check, Definition

SHOWN_ROWS = 5
_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Result:
    """One check of one build."""

    projection: str
    check: str
    passed: bool
    found: str


def verify(conn: Connection, build: Build, definition: Definition) -> list[Result]:
    """Run every check in one snapshot and save the report; loaded → verified, or failed.

    Raises:
        Refused: a check fails; the report is in `data` and in migrator.build.
    """
    with conn.transaction():
        current = builds.lock(conn, build.build, "loaded")
        conn.execute(
            sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.Identifier(build.schema))
        )
        results = [
            _complete(conn, build),
            _rows(conn, current),
            _constraints(conn, build),
            *_quarantine(conn, build),
            *(_own(conn, build, definition, check) for check in definition.checks),
        ]
        failed = [r for r in results if not r.passed]
        report = Jsonb([asdict(r) for r in results])
        error = "; ".join(f"{r.check}: {r.found}" for r in failed) or None
        builds.save(conn, current, "failed" if failed else "verified", report=report, error=error)
    if failed:
        lines = "".join(f"\n  {r.check}: {r.found}" for r in failed)
        raise Refused(
            f"{len(failed)} of {len(results)} checks of {build.projection} fail:{lines}",
            expected="every check to pass before anybody reads the new build",
            next_step=f"look at {build.schema}.{build.table_name}; correct the projection and "
            "run the same command again; live is untouched",
            build=build.build,
            report=[asdict(r) for r in results],
        )
    return results


def _complete(conn: Connection, build: Build) -> Result:
    positions = builds.positions(conn, build.build)
    left = [f"partition {p.partition} lacks {p.lag}" for p in positions if p.lag]
    events = sum(p.events for p in positions)
    found = "; ".join(left) or f"{events:,} events of {len(positions)} partitions"
    return Result(build.projection, "every partition is complete", not left, found)


def _quarantine(conn: Connection, build: Build) -> list[Result]:
    """Not a verdict: what the build goes without was allowed, and is to be seen."""
    found = quarantine.summary(conn, build.build)
    return [Result(build.projection, "events it goes without", True, found)] if found else []


def _rows(conn: Connection, build: Build) -> Result:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(build.table)).fetchone()
    counted = row[0] if row else 0
    found = (
        f"{counted:,} rows" if counted == build.rows else f"{counted:,} rows, not {build.rows:,}"
    )
    return Result(
        build.projection, "the table holds every folded row", counted == build.rows, found
    )


def _constraints(conn: Connection, build: Build) -> Result:
    invalid = conn.execute(
        """SELECT conname FROM pg_constraint
           WHERE conrelid = %(table)s::regclass AND NOT convalidated
           UNION ALL
           SELECT indexrelid::regclass::text FROM pg_index
           WHERE indrelid = %(table)s::regclass AND NOT (indisvalid AND indisready)""",
        {"table": build.table.as_string(conn)},
    ).fetchall()
    found = ", ".join(name for (name,) in invalid) + " invalid" if invalid else "all valid"
    return Result(build.projection, "constraints and indexes are valid", not invalid, found)


def _own(conn: Connection, build: Build, definition: Definition, check: Check) -> Result:
    """The projection's own check: its query must return no row."""
    name = check.name.replace("_", " ")
    statement, parameters = _compiled(check.query(definition.cls), check.name)
    try:
        with conn.transaction():
            rows = conn.execute(statement.encode(), parameters).fetchall()
    except psycopg.Error as exc:
        raise MigratorError(
            f"the check {check.name} of {build.projection} cannot run: "
            f"{str(exc).strip().splitlines()[0]}",
            next_step="correct the check, then run the same command again",
        ) from exc
    found = "no row" if not rows else f"rows such as {rows[0]}"
    return Result(build.projection, name, not rows, found)


def _compiled(query: Any, name: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(query, sa.Select):
        raise MigratorError(
            f"the check {name} returns {type(query).__name__}",
            expected="select(cls).where(...), which must give no row",
        )
    compiled = query.limit(SHOWN_ROWS).compile(
        dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    return str(compiled), dict(compiled.params)
