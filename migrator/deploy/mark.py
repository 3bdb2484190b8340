"""Where a database stands: its last entry in the ledger, and how far each build has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from migrator.migrations import applied
from migrator.postgres import ledger
from migrator.postgres.connect import Connection
from migrator.postgres.ledger import Entry
from migrator.projections import build as builds

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class BuildMark:
    """A build, and its next offset in each partition (topic, partition, next_offset)."""

    build: int
    projection: str
    state: str
    positions: tuple[tuple[str, int, int], ...]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "positions": [list(p) for p in self.positions]}


@dataclass(frozen=True)
class Mark:
    """One instant of a database. `entry` and its hash are None where nothing was done yet."""

    taken_at: datetime
    lsn: str
    revision: str | None
    entry: int | None
    entry_hash: str | None
    builds: tuple[BuildMark, ...]


@dataclass(frozen=True)
class Since:
    """What has been done since a mark, and what going back to it loses."""

    entries: tuple[Entry, ...]
    builds: tuple[BuildMark, ...]
    events: dict[str, int]
    wal_bytes: int


def read(conn: Connection, settings: Settings) -> Mark:
    """Read it, in one snapshot that the caller's transaction has or takes now; read-only."""
    row = conn.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    entries = ledger.entries(conn)
    last = entries[-1] if entries else None
    return Mark(
        taken_at=row[0],
        lsn=row[1],
        revision=", ".join(applied.heads(conn, settings.migrations)) or None,
        entry=last.entry if last else None,
        entry_hash=last.entry_hash if last else None,
        builds=_builds(conn) if ledger.exists(conn) else (),
    )


def _builds(conn: Connection) -> tuple[BuildMark, ...]:
    return tuple(
        BuildMark(
            build=each.build,
            projection=each.projection,
            state=each.state,
            positions=tuple(
                (p.topic, p.partition, p.next_offset) for p in builds.positions(conn, each.build)
            ),
        )
        for each in builds.every(conn)
    )


def from_json(held: Sequence[dict[str, Any]]) -> tuple[BuildMark, ...]:
    """Builds as `BuildMark.as_json` wrote them."""
    return tuple(
        BuildMark(
            int(b["build"]),
            str(b["projection"]),
            str(b["state"]),
            tuple((str(t), int(p), int(o)) for t, p, o in b["positions"]),
        )
        for b in held
    )


def since(conn: Connection, settings: Settings, before: Mark) -> Since:
    """Compare the database with what it was; read-only.

    `builds` are those that came later; `events` says for each older one how many events more it has
    read.
    """
    now = read(conn, settings)
    known = {b.build: b for b in before.builds}
    row = conn.execute("SELECT pg_wal_lsn_diff(%s, %s)::bigint", (now.lsn, before.lsn)).fetchone()
    assert row is not None
    return Since(
        entries=tuple(e for e in ledger.entries(conn) if e.entry > (before.entry or 0)),
        builds=tuple(b for b in now.builds if b.build not in known),
        events={
            f"{b.projection}, build {b.build}": more
            for b in now.builds
            if b.build in known and (more := _more(known[b.build], b))
        },
        wal_bytes=max(row[0], 0),
    )


def _more(before: BuildMark, now: BuildMark) -> int:
    held = {(t, p): offset for t, p, offset in before.positions}
    return sum(max(offset - held.get((t, p), 0), 0) for t, p, offset in now.positions)


def behind(found: Mark, expected: Mark) -> list[str]:
    """Name what `found` lacks that `expected` has; an empty list where it is at least as far. Pure."""
    lacking = []
    if (expected.entry or 0) > (found.entry or 0):
        lacking.append(f"entry {expected.entry} of the ledger")
    elif expected.entry == found.entry and expected.entry_hash != found.entry_hash:
        lacking.append(f"entry {expected.entry} of the ledger is another one")
    held = {b.build: b for b in found.builds}
    for each in expected.builds:
        if each.build not in held:
            lacking.append(f"build {each.build} of {each.projection}")
        elif missing := _more(held[each.build], each):
            lacking.append(f"{missing:,} events of build {each.build} of {each.projection}")
    return lacking
