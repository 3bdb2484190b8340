"""Who stands in the way of a lock: seen from a second session, named, and ended if that is asked for.

Everything here only reads, but for `end`, which ends other sessions, and `push_autovacuum_aside`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from migrator.postgres.connect import Connection

GRACE_S = 2.0
_PUSH_TIMEOUT = "3s"


@dataclass(frozen=True)
class Want:
    """A lock on a relation that a statement asks for; the name is quoted as SQL wants it.

    It waits for who holds one of the modes in `conflicts`; `snapshots` says that it also waits for
    every old snapshot in the database.
    """

    relation: str
    conflicts: tuple[str, ...]
    blocks_nobody: bool = False
    snapshots: bool = False


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """A session, or a prepared transaction, that holds what somebody waits for.

    What the role may not see (it lacks pg_read_all_stats) is None, the query then says so.
    """

    pid: int | None
    user: str | None
    application: str | None
    client: str | None
    state: str | None
    transaction_start: datetime | None
    transaction_age_s: float | None
    query: str | None
    modes: list[str] = field(hash=False)
    relation: str | None
    backend_type: str | None
    superuser: bool
    gid: str | None

    def is_older_than(self, seconds: float) -> bool:
        return self.transaction_age_s is not None and self.transaction_age_s >= seconds

    @property
    def is_autovacuum(self) -> bool:
        return self.backend_type == "autovacuum worker"

    @property
    def prevents_wraparound(self) -> bool:
        return self.is_autovacuum and "to prevent wraparound" in (self.query or "")

    def __str__(self) -> str:
        who = self.gid and f"prepared transaction {self.gid}"
        if who is None:
            of = f" of {self.user}" if self.user else ""
            via = f", {self.application}" if self.application else ""
            kind = "session" if self.backend_type in (None, "client backend") else self.backend_type
            who = f"{kind} {self.pid}{of}{via}"
        at = f" from {self.client}" if self.client else ""
        held = f" holds {' and '.join(self.modes)} on" if self.modes else " is in the way of"
        if self.relation == "its snapshot":
            held = " holds"
        state = f", {self.state}" if self.state else ""
        age = "" if self.transaction_age_s is None else f" for {_age(self.transaction_age_s)}"
        query = f": {self.query}" if self.query and self.gid is None else ""
        return f"{who}{at}{held} {self.relation or 'a lock'}{state}{age}{query}"

    def as_json(self) -> dict[str, Any]:
        age = self.transaction_age_s
        return {
            "pid": self.pid,
            "user": self.user,
            "application": self.application,
            "client": self.client,
            "state": self.state,
            "transaction_age_s": None if age is None else round(age, 3),
            "query": self.query,
            "modes": self.modes,
            "relation": self.relation,
            "backend_type": self.backend_type,
        }


def _age(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def blocking(conn: Connection, pid: int) -> list[Blocker]:
    """Whom session `pid` waits for at this instant; empty where it waits for no lock."""
    return _blockers(conn, "blocking", {"pid": pid})


def waiting_since(conn: Connection, pid: int) -> tuple[datetime, float] | None:
    """When session `pid` began to wait for the lock it waits for, and for how many ms it has."""
    return conn.execute(_query("waited"), {"pid": pid}).fetchone()


def holding(conn: Connection, wanted: Sequence[Want], *, own: int) -> list[Blocker]:
    """Who, beside session `own`, holds what these locks would have to wait for."""
    if not wanted:
        return []
    text = json.dumps([{"name": w.relation, "conflicts": w.conflicts} for w in wanted])
    found = _blockers(conn, "holding", {"wanted": text, "own": own})
    if any(want.snapshots for want in wanted):
        known = {blocker.pid for blocker in found}
        found += [b for b in _blockers(conn, "snapshots", {"own": own}) if b.pid not in known]
    return found


def push_autovacuum_aside(conn: Connection, wanted: Sequence[Want]) -> None:
    """Let autovacuum leave these tables: it yields to whoever waits a second for its lock.

    The lock asked for meanwhile blocks no reader and no writer, and is given back at once.
    """
    for relation in dict.fromkeys(want.relation for want in wanted):
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = '{_PUSH_TIMEOUT}'".encode())
                conn.execute(f"LOCK TABLE {relation} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        except psycopg.Error:
            continue


@dataclass(frozen=True)
class Ended:
    """What became of a blocker that was to be ended."""

    blocker: Blocker
    how: Literal["cancelled", "terminated", "spared"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.how} {self.blocker}" + (f" ({self.why})" if self.why else "")

    def as_json(self) -> dict[str, Any]:
        return {**self.blocker.as_json(), "how": self.how, "why": self.why}


def end(conn: Connection, found: Sequence[Blocker], *, grace_s: float = GRACE_S) -> list[Ended]:
    """Cancel each one's query; after the grace, terminate the session if its transaction is still there.

    Never a superuser's session, never replication or autovacuum, never another migrator's.
    """
    ended = {b: Ended(b, "spared", why) for b in found if (why := _spared(b))}
    for blocker in found:
        if blocker not in ended and not _signal(conn, "pg_cancel_backend", blocker):
            ended[blocker] = Ended(
                blocker, "spared", "this role may not: it needs pg_signal_backend"
            )
    asked = [blocker for blocker in found if blocker not in ended]
    left = _still_there(conn, asked, grace_s)
    for blocker in left:
        _signal(conn, "pg_terminate_backend", blocker)
    _still_there(conn, left, grace_s)
    for blocker in asked:
        ended[blocker] = Ended(blocker, "terminated" if blocker in left else "cancelled")
    return [ended[blocker] for blocker in found]


def _spared(blocker: Blocker) -> str:
    if blocker.gid is not None:
        return f"no session holds it; ROLLBACK PREPARED '{blocker.gid}' would end it"
    if blocker.backend_type != "client backend":
        return f"it is {blocker.backend_type or 'of a kind that this role may not see'}"
    if blocker.superuser:
        return "it is a superuser's"
    if (blocker.application or "").startswith("migrator "):
        return "it is another run of migrator"
    return ""


_IS_THERE = "FROM pg_stat_activity WHERE pid = %s AND xact_start = %s"


def _signal(conn: Connection, function: str, blocker: Blocker) -> bool:
    """Send it only if the pid still stands for the transaction that was seen."""
    query = f"SELECT {function}(pid) {_IS_THERE}"
    try:
        conn.execute(query.encode(), (blocker.pid, blocker.transaction_start))
    except errors.InsufficientPrivilege:
        return False
    return True


def _still_there(conn: Connection, asked: Sequence[Blocker], grace_s: float) -> list[Blocker]:
    limit = time.monotonic() + grace_s
    left = list(asked)
    while left:
        query = f"SELECT 1 {_IS_THERE}".encode()
        left = [b for b in left if conn.execute(query, (b.pid, b.transaction_start)).fetchone()]
        if time.monotonic() >= limit:
            break
        time.sleep(0.02)
    return left


def _blockers(conn: Connection, name: str, parameters: dict[str, Any]) -> list[Blocker]:
    query = _query(name) + _query("blockers")
    with conn.cursor(row_factory=class_row(Blocker)) as cursor:
        return cursor.execute(query, parameters).fetchall()


@cache
def _query(name: str) -> bytes:
    return files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
