"""Copies that are branches on Neon: made in seconds, whatever the size, while the database is in use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg

from migrator.deploy.copies import Copy
from migrator.neon.branches import Branch, Branches, Wanted
from migrator.postgres.connect import Connection, connect
from migrator.settings import Settings

EXPIRES_AFTER = timedelta(days=1)
KEEP = "migrator/keep"
_COLD = (
    "how warm reads go: a new branch begins with an empty file cache, so production may be quicker",
)


class BranchCopies:
    """Makes branches with a compute of their own, which Neon itself deletes after a day.

    An advisory lock on the database that is rehearsed for says that a run goes on. `keep` says that what is
    made outlives its run.
    """

    def __init__(self, settings: Settings, branches: Branches, *, keep: bool = False) -> None:
        self._settings = settings
        self._branches = branches
        self._keep = keep
        self._held: Connection | None = None
        self._made: dict[str, Branch] = {}

    def sweep(self) -> list[str]:
        """Delete branches whose lock nobody holds: who made them is gone."""
        stale = [each for each in self._branches.every("rehearsal") if KEEP not in each.note]
        with connect(self._settings, "rehearse", autocommit=True) as conn:
            stale = [each for each in stale if not _is_held(conn, each.name)]
        return [each.shown for each in stale if self._branches.delete(each)]

    def make(self, say: Callable[[str], None]) -> Copy:
        """Branch off the database as it is now."""
        name = f"{int(time.time())}-{secrets.token_hex(4)}"
        self._hold(name)
        say(f"making the branch rehearsal/{name}")
        expires_at = datetime.now(UTC).replace(microsecond=0) + EXPIRES_AFTER
        note = {KEEP: "yes"} if self._keep else {}
        wanted = Wanted("rehearsal", name, expires_at=expires_at, note=note)
        try:
            branch = self._made[name] = self._branches.create(wanted)
            settings = self._branches.settings(branch)
            self._hold(name)  # the compute may have been restarted meanwhile
        except BaseException:
            self._let_go()  # what was made has a lock no more, and is swept
            raise
        return Copy(
            name=name,
            settings=settings,
            how=branch.shown,
            shares_server=False,
            cannot_tell=_COLD,
            to_drop=f"delete {branch.shown} in Neon's console; Neon does so at {expires_at}",
        )

    def drop(self, copy: Copy) -> None:
        """Delete the branch with its compute."""
        try:
            self._branches.delete(self._made[copy.name])
        finally:
            self._let_go()

    def keep(self, _copy: Copy) -> None:
        """It was made to be kept."""
        self._let_go()

    def _hold(self, name: str) -> None:
        """Hold the lock, on a new session where the one before was lost."""
        with suppress(psycopg.OperationalError):
            if self._held is not None:
                self._held.execute("SELECT 1")
                return
        self._let_go()
        self._held = connect(self._settings, "rehearse", autocommit=True, statement_timeout_ms=0)
        self._held.execute(_LOCK, (name,))

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


_LOCK = "SELECT pg_advisory_lock(hashtextextended('migrator:rehearsal:' || %s, 0))"


def _is_held(conn: Connection, name: str) -> bool:
    row = conn.execute(
        """SELECT EXISTS (SELECT FROM pg_locks
                          WHERE locktype = 'advisory' AND objsubid = 1
                            AND (classid::bigint << 32 | objid::bigint)
                                = hashtextextended('migrator:rehearsal:' || %s, 0))""",
        (name,),
    ).fetchone()
    return row == (True,)
