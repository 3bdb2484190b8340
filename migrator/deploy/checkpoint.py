"""Checkpoints: a branch of the database as it is now, and the way back to it.

A row of migrator.checkpoint goes first, then the branch, then the row says that it is ready; killed
in between, the same command goes on. The branch holds the row, too, as it was before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from migrator.deploy import mark
from migrator.deploy.mark import Mark, Since
from migrator.errors import Busy, MigratorError, Refused, UsageError
from migrator.neon import branches, identity
from migrator.neon.branches import Branch, Branches, Kept, Reach, Restored, Wanted
from migrator.postgres import ledger, locks
from migrator.postgres.connect import Connection, connect
from migrator.postgres.locks import Fence

if TYPE_CHECKING:
    from migrator.settings import Settings

LOCK = "deploy"


@dataclass(frozen=True)
class Row:
    """One row of migrator.checkpoint, without those that are deleted."""

    checkpoint: int
    name: str
    state: str
    provider: str
    branch_id: str | None
    taken_at: datetime
    lsn: str
    revision: str | None
    ledger_entry: int | None
    ledger_hash: str | None
    builds: list[dict[str, Any]]
    expires_at: datetime | None
    client: str
    restored_at: datetime | None
    kept_as: str | None

    @property
    def mark(self) -> Mark:
        return Mark(
            self.taken_at,
            self.lsn,
            self.revision,
            self.ledger_entry,
            self.ledger_hash,
            mark.from_json(self.builds),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its row, its branch, or both.

    Without a row it was made in a time that a restore has undone; without a branch it was never
    finished, has expired, or was deleted by somebody else.
    """

    name: str
    row: Row | None
    branch: Branch | None

    @property
    def state(self) -> str:
        if self.branch is None:
            unfinished = self.row is not None and self.row.state == "creating"
            return "unfinished" if unfinished else "gone"
        if self.row is None:
            return "ready, from a time that a restore has undone"
        return "ready" if self.row.state == "ready" else "unfinished"

    @property
    def expires_at(self) -> datetime | None:
        if self.branch is not None:
            return self.branch.expires_at
        return self.row.expires_at if self.row else None


@dataclass(frozen=True)
class Plan:
    """What a restore would do and lose, and what is kept.

    `unnoted`: an interrupted run has done it already, and what was there is `keep_as`. To read it
    back and note it is all that is left to do.
    """

    checkpoint: Checkpoint
    reach: Reach
    since: Since
    keep_as: str
    unnoted: bool = False


@dataclass(frozen=True)
class Done:
    """What a restore did: where the database stands now, and as what the state before is kept."""

    checkpoint: str
    at: Mark
    kept_as: str


def create(
    settings: Settings,
    *,
    name: str | None = None,
    ttl: timedelta | None = None,
    fence: Fence | None = None,
) -> Checkpoint:
    """Take a checkpoint and wait until it can be gone back to.

    The positions in it are those that were committed shortly before the branch was made: the branch
    has them, and perhaps some events more. A deployment gives the `fence` of its own lock.

    Raises:
        UsageError: the name cannot be one.
        Refused: there is one of that name.
        Busy: a deployment is under way, or, on plain PostgreSQL, somebody is connected.
    """
    expires_at = datetime.now(UTC) + ttl if ttl else None
    with branches.opened(settings) as made_by:
        # Asked before anything is written: it proves where the connection leads.
        there = {branch.name: branch for branch in made_by.every("checkpoint")}
        if fence is None:
            with connect(settings, "checkpoint") as conn:
                _refuse_busy(conn)
        row = _begun(settings, made_by.provider, there, name, expires_at)
        found = there.get(row.name) or made_by.create(
            Wanted("checkpoint", row.name, expires_at, _note(row))
        )
        with connect(settings, "checkpoint") as conn:
            if changed := mark.behind(row.mark, replace(mark.read(conn, settings), builds=())):
                made_by.delete(found)
                raise Busy(
                    f"something was done to the database meanwhile: {', '.join(changed)}",
                    expected="nothing but events while the checkpoint is taken",
                    next_step="run the same command again",
                )
            row = _finished(conn, row, found)
    return Checkpoint(row.name, row, found)


def default_name(settings: Settings) -> str:
    """A name for one that is taken now: the time, and the revision."""
    with connect(settings, "checkpoint") as conn:
        conn.read_only = True
        return _default_name(mark.read(conn, settings))


def every(settings: Settings) -> list[Checkpoint]:
    """Every checkpoint of this database, oldest first: what the ledger knows, and what is there.

    Read-only.
    """
    with branches.opened(settings) as made_by:
        return _every(settings, made_by)


def plan(settings: Settings, name: str) -> Plan:
    """Say what a restore would reach and lose; read-only.

    Raises:
        UsageError: there is no such checkpoint.
        Refused: it cannot be gone back to.
    """
    with branches.opened(settings) as made_by:
        found = _named(settings, made_by, name)
        if found.branch is None:
            raise Refused(
                f"the checkpoint {name} is {found.state}: its branch is not there",
                expected="a checkpoint that is ready",
                next_step="migrator checkpoint list",
            )
        with connect(settings, "restore plan") as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _refuse_busy(conn)
            since = mark.since(conn, settings, _mark_of(found, found.branch))
        if kept := _unnoted(found, made_by.kept()):
            return Plan(found, made_by.reach(), since, kept.kept_as, unnoted=True)
        keep_as = made_by.kept_name(found.branch, datetime.now(UTC))
        return Plan(found, made_by.reach(), since, keep_as)


def _unnoted(found: Checkpoint, kept: Sequence[Kept]) -> Kept | None:
    """What an interrupted restore has kept.

    The row in a branch says that its checkpoint is being made. So it says after a restore, until that
    is noted; and after an interrupted `create`, of which nothing is kept.
    """
    assert found.branch is not None
    if found.row is None or found.row.state == "ready":
        return None
    of_it = [each for each in kept if each.token == found.branch.token]
    return of_it[-1] if of_it else None


def restore(settings: Settings, planned: Plan, *, reason: str) -> Done:
    """Make the database what it was, and read back that it is. The state before is kept.

    All sessions on it are cut. Events are not lost: they are in Kafka, and builds have gone back
    together with their positions.

    Raises:
        Refused: it may not be restored, or the connection does not lead to what was restored.
        MigratorError: what was restored is not what the checkpoint was; the message names both.
    """
    if not reason.strip():
        raise UsageError("a restore needs a reason", expected='--reason "why"')
    found = planned.checkpoint
    assert found.branch is not None
    with connect(settings, "restore") as conn:
        _refuse_busy(conn)
    with branches.opened(settings) as made_by:
        if planned.unnoted:
            done = Restored(planned.keep_as, made_by.settled())
        else:
            done = made_by.restore(found.branch, planned.keep_as)
    with connect(settings, "restored") as conn:
        if done.branch_id is not None:
            identity.refuse_another(conn, settings.neon.project_id, done.branch_id)
        now = mark.read(conn, settings)
        expected = _mark_of(found, found.branch)
        if lacking := mark.behind(now, expected):
            raise MigratorError(
                f"the database was restored, but lacks {', '.join(lacking)}",
                expected=f"what {found.name} was; what was there before is kept as {done.kept_as}",
                next_step="look at both before anything is written; migrator history, migrator status",
            )
        _note_restored(conn, found, reason, done.kept_as)
    return Done(found.name, now, done.kept_as)


def delete(settings: Settings, names: Sequence[str], *, expired: bool = False) -> list[str]:
    """Delete checkpoints, with what the ledger says of them; returns their names. Idempotent.

    Raises:
        UsageError: there is none of that name.
        Refused: the branch is protected, or is a parent.
    """
    with branches.opened(settings) as made_by:
        chosen = to_delete(_every(settings, made_by), names, expired=expired)
        for each in chosen:
            if each.branch is not None:
                made_by.delete(each.branch)
            if each.row is not None:
                with connect(settings, "checkpoint") as conn:
                    conn.execute(
                        "UPDATE migrator.checkpoint SET state = 'deleted', "
                        "changed_at = clock_timestamp() WHERE checkpoint = %s",
                        (each.row.checkpoint,),
                    )
    return [each.name for each in chosen]


def to_delete(
    found: Sequence[Checkpoint], names: Sequence[str], *, expired: bool = False
) -> list[Checkpoint]:
    """Choose by name, or those whose time is up. Pure but for the clock.

    Raises:
        UsageError: there is none of that name.
    """
    known = {each.name: each for each in found}
    for name in names:
        if name not in known:
            raise UsageError.unknown(
                "checkpoint", name, known, next_step="migrator checkpoint list"
            )
    chosen = dict.fromkeys(names)
    if expired:
        now = datetime.now(UTC)
        for each in found:
            if each.expires_at is not None and each.expires_at <= now:
                chosen.setdefault(each.name)
    return [known[name] for name in chosen]


def _begun(
    settings: Settings,
    provider: str,
    there: Mapping[str, Branch],
    name: str | None,
    expires_at: datetime | None,
) -> Row:
    """Write the row of a checkpoint that is being made, or take over that of one that was not."""
    with connect(settings, "checkpoint") as conn:
        ledger.ensure(conn)
        conn.commit()
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        now = mark.read(conn, settings)
        name = branches.checked(name) if name else _default_name(now)
        held = next((row for row in _rows(conn) if row.name == name), None)
        unfinished = held is not None and held.state == "creating"
        if name not in there and (held is None or unfinished):
            return _begin(conn, provider, name, now, expires_at)
        if held is not None and unfinished:
            # Its branch is there: what the row says was read before that was made.
            return held
        raise Refused(
            f"there is a checkpoint {name} already"
            + (f", of {held.taken_at:%Y-%m-%d %H:%M} UTC" if held else ""),
            expected="a name that is free",
            next_step=f"take another name, or migrator checkpoint delete {name}",
        )


def _begin(
    conn: Connection, provider: str, name: str, now: Mark, expires_at: datetime | None
) -> Row:
    conn.execute(
        """INSERT INTO migrator.checkpoint (name, state, provider, taken_at, lsn, revision,
               ledger_entry, ledger_hash, builds, expires_at, client, git_sha)
           VALUES (%s, 'creating', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (name) WHERE state <> 'deleted' DO UPDATE SET
               taken_at = excluded.taken_at, lsn = excluded.lsn, revision = excluded.revision,
               ledger_entry = excluded.ledger_entry, ledger_hash = excluded.ledger_hash,
               builds = excluded.builds, expires_at = excluded.expires_at""",
        (
            name,
            provider,
            now.taken_at,
            now.lsn,
            now.revision,
            now.entry,
            now.entry_hash,
            Jsonb([b.as_json() for b in now.builds]),
            expires_at,
            ledger.client(),
            ledger.git_sha(),
        ),
    )
    return next(row for row in _rows(conn) if row.name == name)


def _finished(conn: Connection, row: Row, branch: Branch) -> Row:
    conn.execute(
        """UPDATE migrator.checkpoint SET state = 'ready', branch_id = %s,
               changed_at = clock_timestamp() WHERE checkpoint = %s""",
        (branch.id, row.checkpoint),
    )
    return next(each for each in _rows(conn) if each.checkpoint == row.checkpoint)


def _note_restored(conn: Connection, found: Checkpoint, reason: str, kept_as: str) -> None:
    """The restored row is of the time before the branch was made; it says now what came of it."""
    assert found.branch is not None
    conn.execute(
        """UPDATE migrator.checkpoint SET state = 'ready', branch_id = %s,
               restored_at = clock_timestamp(), restored_by = %s, reason = %s, kept_as = %s,
               changed_at = clock_timestamp() WHERE name = %s AND state <> 'deleted'""",
        (found.branch.id, ledger.client(), reason, kept_as, found.name),
    )


def _refuse_busy(conn: Connection) -> None:
    if not ledger.exists(conn):
        return
    for holder in locks.holders(conn):
        if holder.lock == LOCK:
            raise Busy(
                f"a deployment is under way: {holder}",
                expected="none",
                next_step="wait for it (migrator status), then run the same command again",
            )


def _rows(conn: Connection) -> list[Row]:
    if not ledger.exists(conn) or "checkpoint" not in _tables(conn):
        return []
    with conn.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(
            """SELECT checkpoint, name, state, provider, branch_id, taken_at, lsn::text, revision,
                      ledger_entry, ledger_hash, builds, expires_at, client, restored_at, kept_as
               FROM migrator.checkpoint WHERE state <> 'deleted' ORDER BY checkpoint"""
        ).fetchall()


def _tables(conn: Connection) -> set[str]:
    from migrator.postgres import layout

    return set(layout.present(conn))


def _every(settings: Settings, made_by: Branches) -> list[Checkpoint]:
    with connect(settings, "checkpoint") as conn:
        conn.read_only = True
        rows = {row.name: row for row in _rows(conn)}
    there = {branch.name: branch for branch in made_by.every("checkpoint")}
    found = [Checkpoint(n, rows.get(n), there.get(n)) for n in {**rows, **there}]
    return sorted(found, key=_age)


def _age(each: Checkpoint) -> datetime:
    return each.row.taken_at if each.row else each.branch.created_at if each.branch else _NEVER


_NEVER = datetime.max.replace(tzinfo=UTC)


def _named(settings: Settings, made_by: Branches, name: str) -> Checkpoint:
    (found,) = to_delete(_every(settings, made_by), [name])
    return found


def _note(row: Row) -> dict[str, str]:
    """Enough to know the checkpoint by where its row is not: after a restore to an older one."""
    return {
        branches.NOTE + "entry": str(row.ledger_entry or 0),
        branches.NOTE + "entry-hash": row.ledger_hash or "",
        branches.NOTE + "revision": row.revision or "",
        branches.NOTE + "taken-at": row.taken_at.isoformat(),
        branches.NOTE + "lsn": row.lsn,
    }


def _mark_of(found: Checkpoint, branch: Branch) -> Mark:
    if found.row is not None:
        return found.row.mark
    note = {name.removeprefix(branches.NOTE): value for name, value in branch.note.items()}
    return Mark(
        taken_at=datetime.fromisoformat(note["taken-at"]),
        lsn=note["lsn"],
        revision=note["revision"] or None,
        entry=int(note["entry"]) or None,
        entry_hash=note["entry-hash"] or None,
        builds=(),
    )


def _default_name(now: Mark) -> str:
    revision = re.sub(r"[^a-z0-9]+", "-", (now.revision or "empty").lower()).strip("-")
    return f"{now.taken_at:%Y%m%d-%H%M%S}-{revision[:20].strip('-') or 'empty'}"
