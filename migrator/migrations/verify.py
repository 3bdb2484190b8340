"""Prove that database, ledger and files belong together: tampering, drift, half-built objects."""

from __future__ import annotations

from dataclasses import dataclass

from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import applied, drift, history, scratch, tampering
from migrator.migrations.findings import Checked, Finding, State
from migrator.postgres import ledger, snapshot
from migrator.postgres.connect import Connection, connect
from migrator.settings import Settings


@dataclass(frozen=True)
class Report:
    """Every check, and every finding, in the order of the checks."""

    checks: tuple[Checked, ...]
    findings: tuple[Finding, ...]
    last_link: str | None

    @property
    def is_clean(self) -> bool:
        """Nothing differs in what was checked."""
        return not any(finding.is_problem for finding in self.findings)

    @property
    def is_complete(self) -> bool:
        """Every check that was asked for has run."""
        return all(checked.skipped is None or checked.as_asked for checked in self.checks)


def verify(
    settings: Settings,
    *,
    with_drift: bool = True,
) -> Report:
    """Run every check; changes nothing in the database.

    A check that cannot run says so, and the others still run. Drift is found by a scratch database,
    which is made on the same server and dropped.

    Raises:
        UsageError: there is no migrations folder.
        CannotConnect: the database does not answer.
    """
    state = _read(settings)
    checks: list[Checked] = []
    findings: list[Finding] = []
    for check in (
        tampering.chain,
        tampering.rollback_scripts,
        tampering.files,
        drift.drift if with_drift else drift.not_asked,
        drift.indexes,
        drift.constraints,
    ):
        checked, found = check(state)
        checks.append(checked)
        findings += found
    last = state.entries[-1].entry_hash if state.entries else None
    return Report(tuple(checks), tuple(findings), last)


def _read(settings: Settings) -> State:
    problem: Refused | None = None
    with connect(settings, "verify", statement_timeout_ms=0) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            found = applied.read(conn, settings.migrations)
        except Refused as exc:
            problem = exc
            found = applied.read_unchecked(conn, settings.migrations)
        left_out = _left_out(conn, settings)
        live = snapshot.read(conn, left_out=left_out)
    state = State(settings, found, live, left_out, problem)
    try:
        state.files = history.read(settings)
    except UsageError:
        raise
    except MigratorError as exc:
        state.files_problem = exc
    return state


def _left_out(conn: Connection, settings: Settings) -> list[str]:
    """Alembic's table, and the live tables of projections: no revision makes them."""
    found = scratch.version_tables(conn, settings)
    if ledger.exists(conn):
        rows = conn.execute(
            """SELECT quote_ident(target_schema) || '.' || quote_ident(table_name)
               FROM migrator.build WHERE state = 'live'"""
        ).fetchall()
        found += [name for (name,) in rows]
    return found
