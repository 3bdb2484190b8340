"""Drop archived builds that no rollback needs, to give their disk space back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from migrator.errors import Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.turn import turn

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class Archived:
    """An archived build: its size in bytes with indexes, since when, and why it is kept, if it is."""

    build: int
    projection: str
    archived_at: datetime
    bytes: int
    kept: str | None


def plan(
    settings: Settings,
    *,
    keep: int = 1,
    days: float = 0,
    projections: Sequence[str] = (),
    give_up_rollback: bool = False,
) -> list[Archived]:
    """Say of every archived build whether `prune` would drop it; read-only.

    Kept are the build that the next rollback of its projection goes back to, the `keep` newest of a
    projection, and what was archived less than `days` ago. `give_up_rollback` does not keep the first.

    Raises:
        UsageError: a projection that has no build.
    """
    with connect(settings, "plan") as conn:
        conn.read_only = True
        return _looked(conn, keep, days, projections, give_up_rollback=give_up_rollback)


def prune(
    settings: Settings,
    *,
    keep: int = 1,
    days: float = 0,
    projections: Sequence[str] = (),
    give_up_rollback: bool = False,
) -> list[Archived]:
    """Drop what `plan` does not keep, each build in a transaction of its own; idempotent.

    Raises:
        UsageError: as `plan`.
        Refused: something that is not migrator's needs a build's table; those before it are dropped.
        Busy: a rebuild of such a projection is running.
    """
    chosen = plan(
        settings,
        keep=keep,
        days=days,
        projections=projections,
        give_up_rollback=give_up_rollback,
    )
    names = {each.projection for each in chosen}
    with turn(settings, names), connect(settings, "prune", autocommit=True) as conn:
        found = _looked(conn, keep, days, projections, give_up_rollback=give_up_rollback)
        for each in found:
            build = None if each.kept else builds.numbered(conn, each.build)
            if build is not None:
                _drop(conn, build)
        return found


def _looked(
    conn: Connection,
    keep: int,
    days: float,
    projections: Sequence[str],
    *,
    give_up_rollback: bool,
) -> list[Archived]:
    if not ledger.exists(conn):
        return []
    everything = builds.every(conn)
    known = {each.projection for each in everything}
    for name in projections:
        if name not in known:
            raise UsageError.unknown("projection", name, known, next_step="migrator status")
    archived = [
        each
        for each in everything
        if each.state == "archived" and (not projections or each.projection in projections)
    ]
    kept = set() if give_up_rollback else needed(conn)
    return list(_judged(conn, archived, kept, keep, days))


def _judged(
    conn: Connection, archived: list[Build], needed: set[int], keep: int, days: float
) -> Iterator[Archived]:
    rank: dict[str, int] = {}
    for each in sorted(archived, key=lambda build: (build.projection, -build.build)):
        row = conn.execute(
            """SELECT changed_at, coalesce(pg_total_relation_size(to_regclass(%s)), 0),
                      changed_at > clock_timestamp() - make_interval(secs => %s)
               FROM migrator.build WHERE build = %s""",
            (each.table.as_string(conn), days * 86_400, each.build),
        ).fetchone()
        assert row is not None
        since, size, is_young = row
        rank[each.projection] = rank.get(each.projection, 0) + 1
        why = None
        if each.build in needed:
            why = f"migrator rollback --projection {each.projection} goes back to it"
        elif rank[each.projection] <= keep:
            why = f"among the {keep} newest"
        elif is_young:
            why = f"archived less than {days:g} days ago"
        yield Archived(each.build, each.projection, since, size, why)


def needed(conn: Connection) -> set[int]:
    """The builds that the next rollback of each projection goes back to."""
    entries = ledger.entries(conn)
    undone = {entry.undoes for entry in entries}
    last = {
        entry.subject: entry.replaced_build
        for entry in entries
        if entry.act == "cut-over" and entry.entry not in undone
    }
    return {build for build in last.values() if build is not None}


def _drop(conn: Connection, build: Build) -> None:
    """Drop the build's tables and its schema, but nothing that somebody else has put on them."""
    with conn.transaction():
        current = builds.lock(conn, build.build, "archived")
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'",
            (build.schema,),
        ).fetchall()
        names = [sql.Identifier(build.schema, name) for (name,) in tables]
        try:
            if names:
                conn.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(names)))
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(build.schema)))
        except psycopg.errors.DependentObjectsStillExist as exc:
            raise Refused(
                f"build {build.build} of {build.projection} is needed by what is not migrator's: "
                f"{(exc.diag.message_detail or '').strip()}",
                expected="nothing but the build's own in its schema, and nothing that reads its table",
                next_step="drop those, then run the same command again",
                build=build.build,
            ) from exc
        builds.forget(conn, current, "dropped")
