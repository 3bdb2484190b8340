"""Say what stopped a run: which revision, at which statement, and what had been applied."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from migrator.errors import Busy, CannotConnect, MigratorError, Refused
from migrator.migrations import retry, scripts
from migrator.migrations.revision import Revision
from migrator.migrations.session import EndsTransaction
from migrator.postgres.connect import translated


def explain(
    exc: Exception, revision: Revision, applied: Sequence[str], committed: Sequence[str] = ()
) -> MigratorError:
    """Translate whatever a revision raised; `applied` is what this run had done before.

    `committed` are the statements that an exempt revision has committed on its way.
    """
    data: dict[str, Any] = {"revision": revision.id, "applied": list(applied)}
    if committed:
        data["committed"] = list(committed)
    kept = _kept(revision, applied, committed)
    match exc:
        case MigratorError():
            exc.data.update(data)
            return exc
        case retry.Exhausted():
            return _busy(exc, revision, kept, data)
        case EndsTransaction():
            return Refused(
                f"revision {revision.id} would leave its transaction: {exc}\n{kept}",
                expected="one transaction for the whole revision; for a statement that cannot run "
                "in one, op.get_context().autocommit_block() in a revision of its own",
                next_step=f"correct {revision.path}, then run migrator up again",
                **data,
            )
        case psycopg.Error() | DBAPIError():
            return _database(exc, revision, kept, data)
    return MigratorError(
        f"revision {revision.id} failed in {_where(exc, revision.path)}: "
        f"{type(exc).__name__}: {exc}\n{kept}",
        next_step=f"correct {revision.path}, then run migrator up again",
        **data,
    )


def _busy(
    exc: retry.Exhausted, revision: Revision, kept: str, data: dict[str, Any]
) -> MigratorError:
    data |= {"attempts": exc.attempts, "cause": exc.cause}
    if exc.lost_connection:
        if exc.unsettled:
            kept = f"whether {revision.id} was committed is not known; the next run finds out"
        return CannotConnect(
            f"revision {revision.id} lost its connection, and the server did not answer again "
            f"before the deadline: {exc.cause}\n{kept}",
            next_step="bring PostgreSQL back, then run migrator up again",
            **data,
        )
    return busy(exc, f"revision {revision.id}", kept, "migrator up", data)


def busy(exc: retry.Exhausted, what: str, kept: str, command: str, data: dict[str, Any]) -> Busy:
    """Say whom the work waited for until the deadline, and what stays."""
    many = "attempt" if exc.attempts == 1 else "attempts"
    did = (
        "waited for transactions that would have kept it, and readers behind it, waiting"
        if exc.held_off
        else f"gave up after {exc.attempts} {many}: {exc.cause}"
    )
    found = "".join(f"\nin the way: {blocker}" for blocker in exc.blockers)
    pids = [str(b.pid) for b in exc.blockers if b.pid is not None]
    end = f"end {', '.join(pids)}" if pids else "end what holds them (pg_stat_activity)"
    return Busy(
        f"{what} {did}{found}\n{kept}",
        expected="the locks it needs before the deadline ([database] deadline_s)",
        next_step=f"{end} or wait, then run {command} again (docs/locks.md)",
        blockers=[blocker.as_json() for blocker in exc.blockers],
        **data,
    )


def _database(
    exc: psycopg.Error | DBAPIError, revision: Revision, kept: str, data: dict[str, Any]
) -> MigratorError:
    cause = retry.driver_error(exc)
    sent = exc.statement if isinstance(exc, DBAPIError) else None
    step = f"correct {revision.path} or what it met in the database, then run migrator up again"
    if isinstance(cause, psycopg.errors.DiskFull | psycopg.errors.ReadOnlySqlTransaction):
        step = translated(cause).next_step
    at = f"\nin: {scripts.first_line(sent)}" if sent else ""
    return MigratorError(
        f"revision {revision.id} failed: {retry.said(cause)}{at}\n{kept}",
        next_step=step,
        statement=sent,
        sqlstate=getattr(cause, "sqlstate", None),
        **data,
    )


def _kept(revision: Revision, applied: Sequence[str], committed: Sequence[str]) -> str:
    """What stays in the database, in one sentence."""
    before = f"applied before it, and kept: {', '.join(applied)}; " if applied else ""
    if committed:
        each = "".join(f"\n  {text}" for text in committed)
        return (
            f"{before}of {revision.id} these statements stay committed, and the next run goes on "
            f"behind them:{each}"
        )
    if revision.backfills:
        return f"{before}the pages of {revision.id} that are committed stay; the next run goes on"
    if revision.transactional:
        return f"{before}of {revision.id} nothing is left in the database"
    return f"{before}an INVALID index that {revision.id} may have left is dropped by the next run"


def _where(exc: Exception, path: Path) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(exc.__traceback__)
        if Path(frame.filename) == path
    ]
    return f"{path}, line {lines[-1]}" if lines else str(path)
