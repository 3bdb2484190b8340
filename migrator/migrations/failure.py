"""Say what stopped a run: which revision, at which statement, and what had been applied."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from migrator.errors import Busy, MigratorError, Refused
from migrator.migrations import retry, scripts
from migrator.migrations.revision import Revision
from migrator.migrations.session import EndsTransaction


def explain(exc: Exception, revision: Revision, applied: Sequence[str]) -> MigratorError:
    """Translate whatever a revision raised; `applied` is what this run had done before."""
    data: dict[str, Any] = {"revision": revision.id, "applied": list(applied)}
    kept = _kept(revision, applied)
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
    many = "attempt" if exc.attempts == 1 else "attempts"
    return Busy(
        f"revision {revision.id} gave up after {exc.attempts} {many}: {exc.cause}\n{kept}",
        expected="the locks it needs before the deadline ([database] deadline_s)",
        next_step="end or wait for what holds them (pg_stat_activity), then run migrator up again",
        attempts=exc.attempts,
        cause=exc.cause,
        **data,
    )


def _database(
    exc: psycopg.Error | DBAPIError, revision: Revision, kept: str, data: dict[str, Any]
) -> MigratorError:
    cause = retry.driver_error(exc)
    sent = exc.statement if isinstance(exc, DBAPIError) else None
    at = f"\nin: {scripts.first_line(sent)}" if sent else ""
    return MigratorError(
        f"revision {revision.id} failed: {retry.said(cause)}{at}\n{kept}",
        next_step=f"correct {revision.path} or what it met in the database, "
        "then run migrator up again",
        statement=sent,
        sqlstate=getattr(cause, "sqlstate", None),
        **data,
    )


def _kept(revision: Revision, applied: Sequence[str]) -> str:
    """What stays in the database, in one sentence."""
    before = f"applied before it, and kept: {', '.join(applied)}; " if applied else ""
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
