"""What rehearsals have come to: the one thing that a rehearsal writes to the database it is about."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from migrator.postgres import ledger
from migrator.postgres.connect import Connection

Outcome = Literal["passed", "failed"]


@dataclass(frozen=True)
class Recorded:
    """One row of migrator.rehearsal, without its report. `age_s` is by the server's clock."""

    rehearsal: int
    plan_hash: str
    outcome: Outcome
    rehearsed_at: datetime
    age_s: float
    role: str
    client: str
    git_sha: str | None


def record(
    conn: Connection, plan_hash: str, outcome: Outcome, report: dict[str, Any], duration_ms: int
) -> int:
    """Write one outcome and return its number; makes the table where a layout is older.

    Raises:
        Refused: the ledger is of a newer format, or the role may not complete it.
    """
    ledger.ensure(conn)
    row = conn.execute(
        """INSERT INTO migrator.rehearsal (plan_hash, outcome, report, duration_ms, client, git_sha)
           VALUES (%s, %s, %s, %s, %s, %s) RETURNING rehearsal""",
        (plan_hash, outcome, Jsonb(report), duration_ms, ledger.client(), ledger.git_sha()),
    ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def latest(conn: Connection, plan_hash: str) -> Recorded | None:
    """The newest rehearsal of exactly this plan, whatever its outcome; read-only.

    None also where the database has no such table yet.
    """
    there = conn.execute("SELECT to_regclass('migrator.rehearsal') IS NOT NULL").fetchone()
    if there != (True,):
        return None
    names = [f.name for f in fields(Recorded) if f.name != "age_s"]
    query = (
        f"SELECT {', '.join(names)}, "  # noqa: S608 - our own names
        "extract(epoch FROM clock_timestamp() - rehearsed_at)::float8 AS age_s "
        "FROM migrator.rehearsal WHERE plan_hash = %s ORDER BY rehearsal DESC LIMIT 1"
    )
    with conn.cursor(row_factory=class_row(Recorded)) as cursor:
        return cursor.execute(query.encode(), (plan_hash,)).fetchone()
