"""A deployment: one row of migrator.deployment, and a row for each of its steps.

    running → done, stopped, rolling-back;  stopped → running;  rolling-back → rolled-back, rollback-failed
    and failed (before it changed anything), abandoned

Every function locks the row, verifies the state, acts and saves, in one transaction: killed anywhere,
the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from migrator.deploy import plan
from migrator.deploy.plan import Plan
from migrator.errors import Refused, UsageError
from migrator.postgres import layout, ledger
from migrator.postgres.connect import Connection

State = Literal[
    "running",
    "stopped",
    "rolling-back",
    "done",
    "failed",
    "rolled-back",
    "rollback-failed",
    "abandoned",
]
UNFINISHED: tuple[State, ...] = ("running", "stopped", "rolling-back")
Outcome = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Deployment:
    """One row. The ledger's entries of a deployment carry its `run`."""

    deployment: int
    run: UUID
    phase: Literal["expand", "contract"]
    state: State
    step: str | None
    plan_hash: str
    plan: Plan
    error: str | None
    reason: str | None
    allowed: list[str] | None
    role: str
    client: str
    git_sha: str | None
    began_at: datetime
    changed_at: datetime
    ended_at: datetime | None

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED


@dataclass(frozen=True)
class StepRow:
    """One step of a deployment. `outcome` is None while it runs, or where it was killed."""

    deployment: int
    step: str
    outcome: Outcome | None
    said: str | None
    detail: dict[str, Any] | None
    attempts: int
    began_at: datetime
    ended_at: datetime | None

    @property
    def seconds(self) -> float | None:
        return None if self.ended_at is None else (self.ended_at - self.began_at).total_seconds()

    @property
    def is_over(self) -> bool:
        """Whether it need not be done again."""
        return self.outcome in ("done", "skipped")


_COLUMNS = ", ".join(f.name for f in fields(Deployment))
_STEP_COLUMNS = ", ".join(f.name for f in fields(StepRow))


def _is_there(conn: Connection) -> bool:
    return ledger.exists(conn) and "deployment_step" in layout.present(conn)


def _select(conn: Connection, rest: str, parameters: Iterable[Any] = ()) -> list[Deployment]:
    if not _is_there(conn):
        return []
    query = f"SELECT {_COLUMNS} FROM migrator.deployment {rest}"  # noqa: S608 - our own words
    with conn.cursor(row_factory=kwargs_row(_read)) as cursor:
        return cursor.execute(query.encode(), [*parameters]).fetchall()


def _read(**row: Any) -> Deployment:
    return Deployment(**{**row, "plan": plan.from_json(row["plan"])})


def unfinished(conn: Connection) -> Deployment | None:
    """The deployment that is neither done nor given up; there is at most one. Read-only."""
    return next(iter(_select(conn, "WHERE ended_at IS NULL")), None)


def newest(conn: Connection) -> Deployment | None:
    """The last deployment that began; read-only."""
    return next(iter(_select(conn, "ORDER BY deployment DESC LIMIT 1")), None)


def of_run(conn: Connection, run: UUID) -> Deployment | None:
    """The deployment whose ledger entries carry this run; read-only."""
    return next(iter(_select(conn, "WHERE run = %s", [run])), None)


def numbered(conn: Connection, number: int) -> Deployment:
    """The deployment of this number; read-only.

    Raises:
        UsageError: there is none.
    """
    for found in _select(conn, "WHERE deployment = %s", [number]):
        return found
    last = newest(conn)
    known = f"the last one is {last.deployment}" if last else "there is none yet"
    raise UsageError(f"there is no deployment {number}", expected=known)


def steps(conn: Connection, deployment: int) -> dict[str, StepRow]:
    """The steps that it has begun, by name, in their order; read-only."""
    query = (
        f"SELECT {_STEP_COLUMNS} FROM migrator.deployment_step "  # noqa: S608 - our own words
        "WHERE deployment = %s ORDER BY position"
    )
    with conn.cursor(row_factory=class_row(StepRow)) as cursor:
        found = cursor.execute(query.encode(), (deployment,)).fetchall()
    return {each.step: each for each in found}


def begin(
    conn: Connection,
    planned: Plan,
    run: UUID,
    *,
    reason: str | None = None,
    allowed: Iterable[str] = (),
) -> Deployment:
    """Write a new deployment's row; no other one is unfinished."""
    with conn.transaction():
        conn.execute(
            """INSERT INTO migrator.deployment
                   (run, phase, state, plan_hash, plan, reason, allowed, client, git_sha)
               VALUES (%s, %s, 'running', %s, %s, %s, %s, %s, %s)""",
            (
                run,
                planned.phase,
                planned.hash,
                Jsonb(planned.as_json()),
                reason,
                sorted(allowed) or None,
                ledger.client(),
                ledger.git_sha(),
            ),
        )
    made = of_run(conn, run)
    assert made is not None
    return made


def turn(
    conn: Connection,
    deployment: int,
    state: State,
    *,
    error: str | None = None,
    reason: str | None = None,
) -> Deployment:
    """Bring the deployment to another state; one that is not unfinished has ended.

    Raises:
        Refused: it has ended otherwise meanwhile.
    """
    allowed: tuple[State, ...] = UNFINISHED
    if state == "rolled-back":
        allowed = (*UNFINISHED, "done", "rollback-failed", "abandoned", "rolled-back")
    with conn.transaction():
        _lock(conn, deployment, allowed)
        conn.execute(
            """UPDATE migrator.deployment
               SET state = %(state)s, error = %(error)s, reason = coalesce(%(reason)s, reason),
                   changed_at = clock_timestamp(),
                   ended_at = CASE WHEN %(ends)s THEN clock_timestamp() END
               WHERE deployment = %(deployment)s""",
            {
                "state": state,
                "error": error,
                "reason": reason,
                "ends": state not in UNFINISHED,
                "deployment": deployment,
            },
        )
    return numbered(conn, deployment)


def step_begins(conn: Connection, deployment: int, step: str) -> None:
    """Say that a step runs now.

    Raises:
        Refused: the deployment has ended meanwhile.
    """
    with conn.transaction():
        _lock(conn, deployment, UNFINISHED)
        conn.execute(
            """INSERT INTO migrator.deployment_step (deployment, step, position)
               VALUES (%(deployment)s, %(step)s,
                       (SELECT count(*) FROM migrator.deployment_step
                        WHERE deployment = %(deployment)s))
               ON CONFLICT (deployment, step) DO UPDATE
               SET outcome = NULL, said = NULL, detail = NULL, ended_at = NULL,
                   began_at = clock_timestamp(), attempts = deployment_step.attempts + 1""",
            {"deployment": deployment, "step": step},
        )
        conn.execute(
            """UPDATE migrator.deployment SET step = %s, changed_at = clock_timestamp()
               WHERE deployment = %s""",
            (step, deployment),
        )


def step_ends(
    conn: Connection,
    deployment: int,
    step: str,
    outcome: Outcome,
    said: str,
    detail: dict[str, Any] | None = None,
) -> StepRow:
    """Say how a step ended.

    Raises:
        Refused: the deployment has ended meanwhile.
    """
    with conn.transaction():
        _lock(conn, deployment, UNFINISHED)
        conn.execute(
            """UPDATE migrator.deployment_step
               SET outcome = %s, said = %s, detail = %s, ended_at = clock_timestamp()
               WHERE deployment = %s AND step = %s""",
            (outcome, said, Jsonb(detail) if detail is not None else None, deployment, step),
        )
    return steps(conn, deployment)[step]


def _lock(conn: Connection, deployment: int, allowed: tuple[State, ...]) -> None:
    row = conn.execute(
        "SELECT state FROM migrator.deployment WHERE deployment = %s FOR UPDATE", (deployment,)
    ).fetchone()
    state = row[0] if row else "not there"
    if state not in allowed:
        raise Refused(
            f"deployment {deployment} is {state}",
            expected=f"one that is {', '.join(allowed[:-1])} or {allowed[-1]}",
            next_step="migrator deploy begins a new one",
            deployment=deployment,
            state=state,
        )


def entries_of(entries: Iterable[ledger.Entry], deployment: Deployment) -> list[ledger.Entry]:
    """What the deployment did that still stands, oldest first; pure."""
    everything = list(entries)
    undone = {entry.undoes for entry in everything}
    return [
        entry
        for entry in everything
        if entry.run == deployment.run
        and entry.act in ("up", "cut-over")
        and entry.entry not in undone
    ]
