"""Check a loaded build before anybody may read it.

Each check passes, fails or is skipped, with its numbers. What fails by itself, fails the build. Where it
is the diff with live alone, the build stays loaded: it may be right, and somebody may accept it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from migrator.errors import MigratorError, Refused
from migrator.kafka.topics import TopicRange
from migrator.postgres.connect import Connection
from migrator.projections import agreement, diff, purity, quarantine
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.definition import Check, Definition
from migrator.projections.diff_columns import NotCompared
from migrator.projections.diff_text import diff_lines
from migrator.projections.diff_verdict import Asked, judged, not_judged
from migrator.projections.registry import Registered
from migrator.projections.sampled import first_events
from migrator.projections.verdict import Judged, Verdict, passed

if TYPE_CHECKING:
    from migrator.settings import Settings

DIFF = "the rows are those of live"
SHOWN_ROWS = 5
_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Result:
    """One check of one build; `numbers` are for programs."""

    projection: str
    check: str
    verdict: Verdict
    found: str
    numbers: dict[str, Any] = field(default_factory=dict)


def verify(
    conn: Connection,
    settings: Settings,
    build: Build,
    registered: Registered,
    topics: Sequence[TopicRange],
    *,
    asked: Asked,
    renamed: Mapping[str, str] | None = None,
) -> list[Result]:
    """Run every check and save the report; loaded → verified, or failed.

    Where the diff with live alone fails, the build stays loaded.

    Raises:
        Refused: a check fails; the report is in `data` and in migrator.build.
    """
    definition = registered.definition
    folded = list(_folded(conn, settings, build, definition, topics))
    compared = _diff(conn, settings, build, registered, asked, renamed or {})
    with conn.transaction():
        current = builds.lock(conn, build.build, "loaded")
        conn.execute(
            sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.Identifier(build.schema))
        )
        results = [
            _complete(conn, build),
            _rows(conn, current),
            _constraints(conn, build),
            _plans(conn, build),
            *_quarantine(conn, build),
            *(_own(conn, build, definition, check) for check in definition.checks),
            *folded,
            compared,
        ]
        failed = [r for r in results if r.verdict == "failed"]
        if not failed:
            state: builds.State = "verified"
        else:
            state = "loaded" if failed == [compared] else "failed"
        report = Jsonb([asdict(r) for r in results])
        error = "; ".join(f"{r.check}: {r.found}" for r in failed) or None
        builds.save(conn, current, state, report=report, error=error)
    if failed:
        raise _refusal(build, results, failed)
    return results


def accepted(conn: Connection, chosen: Sequence[Build]) -> str | None:
    """The reasons for which differences of these builds from live were accepted; read-only."""
    rows = conn.execute(
        """SELECT DISTINCT each -> 'numbers' ->> 'accepted'
           FROM migrator.build, jsonb_array_elements(report) AS each
           WHERE build = ANY(%s) AND jsonb_typeof(report) = 'array'
             AND each -> 'numbers' ->> 'accepted' IS NOT NULL ORDER BY 1""",
        ([each.build for each in chosen],),
    ).fetchall()
    return "; ".join(reason for (reason,) in rows) or None


def _refusal(build: Build, results: Sequence[Result], failed: Sequence[Result]) -> Refused:
    table = f"{build.schema}.{build.table_name}"
    if [each.check for each in failed] == [DIFF]:
        next_step = (
            f"look at {table}, which stays: if live is what is wrong, run the same command again with "
            '--accept-diff "why"; if the projection is, correct it and run the same command again; '
            "live is untouched"
        )
    else:
        next_step = (
            f"look at {table}; correct the projection and run the same command again; live is "
            "untouched"
        )
    lines = "".join(
        f"\n  {r.check}: {r.found}" + "".join(f"\n    {line}" for line in examples(r))
        for r in failed
    )
    return Refused(
        f"{len(failed)} of {len(results)} checks of {build.projection} fail:{lines}",
        expected="every check to pass before anybody reads the new build",
        next_step=next_step,
        build=build.build,
        report=[asdict(r) for r in results],
    )


def examples(result: Result) -> list[str]:
    """A line for each of the first keys that a diff found to differ, and for what it did not compare."""
    return diff_lines(result.numbers) if result.check == DIFF else []


def _diff(
    conn: Connection,
    settings: Settings,
    build: Build,
    registered: Registered,
    asked: Asked,
    renamed: Mapping[str, str],
) -> Result:
    live = next(iter(builds.find(conn, build.projection, ["live"])), None)
    if live is None:
        return _result(build, DIFF, not_judged("nothing is live yet", asked, has_live=False))
    try:
        found = diff.compare(conn, settings, build, registered.definition, renamed)
    except NotCompared as exc:
        verdict = not_judged(str(exc), asked, has_live=True)
    else:
        same = live.definition_hash == registered.hash
        verdict = judged(found, asked, same_definition=same)
    return _result(build, DIFF, verdict)


def _result(build: Build, check: str, verdict: Judged) -> Result:
    return Result(build.projection, check, verdict.verdict, verdict.found, verdict.numbers)


def _folded(
    conn: Connection,
    settings: Settings,
    build: Build,
    definition: Definition,
    topics: Sequence[TopicRange],
) -> Iterator[Result]:
    """The checks of the handlers, on the first events of a partition."""
    sample = first_events(settings, topics)
    twice = purity.fold_twice(sample, definition)
    yield _result(build, "a sample folds twice to the same rows", twice.judged)
    agree = agreement.agree(conn, build, definition, sample, twice)
    yield _result(build, "bulk and live engine agree on a sample", agree)


def _complete(conn: Connection, build: Build) -> Result:
    positions = builds.positions(conn, build.build)
    left = [f"partition {p.partition} lacks {p.lag}" for p in positions if p.lag]
    events = sum(p.events for p in positions)
    found = "; ".join(left) or f"{events:,} events of {len(positions)} partitions"
    return _result(build, "every partition is complete", passed(not left, found))


def _quarantine(conn: Connection, build: Build) -> list[Result]:
    """Not a verdict: what the build goes without was allowed, and is to be seen."""
    found = quarantine.summary(conn, build.build)
    return [_result(build, "events it goes without", passed(True, found))] if found else []


def _rows(conn: Connection, build: Build) -> Result:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(build.table)).fetchone()
    counted = row[0] if row else 0
    found = (
        f"{counted:,} rows" if counted == build.rows else f"{counted:,} rows, not {build.rows:,}"
    )
    holds = passed(counted == build.rows, found, rows=counted)
    return _result(build, "the table holds every folded row", holds)


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
    return _result(build, "constraints and indexes are valid", passed(not invalid, found))


def _plans(conn: Connection, build: Build) -> Result:
    """Without statistics the first queries after the cut-over would be planned blindly."""
    query = files("migrator.postgres").joinpath("sql/statistics.sql").read_bytes()
    row = conn.execute(query, {"table": build.table.as_string(conn)}).fetchone()
    assert row is not None
    rows, columns, lacking = row
    found = f"statistics of {columns} columns, {rows:,} rows expected"
    if rows < 0:
        found = "it was never analysed"
    elif lacking:
        found = f"no statistics of {', '.join(lacking)}"
    return _result(build, "plans can be made", passed(rows >= 0 and not lacking, found, rows=rows))


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
    return _result(build, name, passed(not rows, found))


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
