"""Release events from quarantine: fold what waits behind one that a projector could not fold.

Those that a rebuild has put there hold nothing back: they are marked as seen to, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg

from migrator.errors import Busy, MigratorError, Refused
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import quarantine, registry, writers
from migrator.projections.apply import Applier
from migrator.projections.quarantine import Held

if TYPE_CHECKING:
    from migrator.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Released:
    """What a release did, by entries: marked, folded into the table, left out of it for good.

    `stopped` are those that do not fold either, and hold back what is left of their key.
    """

    marked: list[Held]
    folded: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)


def release(conn: Connection, settings: Settings, numbers: Sequence[int], reason: str) -> Released:
    """Release entries, all or none, in one transaction.

    An entry that events wait behind is folded, if that is possible now, and left out of the table
    otherwise; then those behind it are folded, in their order, up to the first that does not fold.
    `conn` is in autocommit mode.

    Raises:
        UsageError: there is no such entry.
        Refused: its build is unfinished or of another definition than this checkout's, or the entry
            waits behind another.
        Busy: a projector did not end its batch.
    """
    with conn.transaction():
        found = quarantine.releasable(conn, numbers)
        heads = [each for each in found if _holds_back(each)]
        done = Released(quarantine.release(conn, numbers, reason))
        for build in sorted({each.build for each in heads}):
            own = [each for each in heads if each.build == build]
            _fold(conn, settings, build, own, reason, done)
    return done


def _holds_back(each: Held) -> bool:
    if each.released_at is not None or each.held_behind is None:
        return False
    if each.held_behind != each.entry:
        raise Refused(
            f"entry {each.entry} waits behind entry {each.held_behind}, of the same key",
            expected="the first event of a key, since their order counts",
            next_step=f"migrator quarantine release {each.held_behind}",
        )
    return True


def _fold(
    conn: Connection,
    settings: Settings,
    number: int,
    heads: Sequence[Held],
    reason: str,
    done: Released,
) -> None:
    applier = _applier(conn, settings, number)
    for head in heads:
        if _folds(conn, applier, head) is None:
            done.folded.append(head.entry)
        else:
            done.left_out.append(head.entry)
        for each in quarantine.behind(conn, head.entry):
            if trouble := _folds(conn, applier, each):
                quarantine.hold_at(conn, head.entry, each.entry, trouble)
                done.stopped[each.entry] = trouble
                break
            quarantine.mark(conn, [each.entry], reason)
            done.folded.append(each.entry)


def _applier(conn: Connection, settings: Settings, number: int) -> Applier:
    """What folds into the build, once no projector is in the middle of a batch."""
    build = builds.numbered(conn, number)
    assert build is not None
    try:
        conn.execute("SET LOCAL lock_timeout = '10s'")
        writers.exclude(conn, [build.projection])
    except psycopg.errors.LockNotAvailable as exc:
        raise Busy(
            f"a projector of {build.projection} did not end its batch within 10 s",
            next_step="run the same command again",
        ) from exc
    build = builds.numbered(conn, number)
    assert build is not None
    known = registry.load(settings.projections_dir).get(build.projection)
    if known is None or known.hash != build.definition_hash:
        raise Refused(
            f"build {number} of {build.projection} is of another definition than this checkout's: "
            "the events that wait could not be folded as the others were",
            expected=f"definition {build.definition_hash}",
            next_step="run it from the checkout of the release that the build was made by",
            build=number,
        )
    table = build.target if build.state == "live" else build.table
    kinds = {name: settings.topic(name) for name in known.definition.topics}
    return Applier(conn, kinds, build, known.definition, table)


def _folds(conn: Connection, applier: Applier, each: Held) -> str | None:
    """Fold one event; where that cannot be, change nothing and return why."""
    try:
        with conn.transaction():
            applier.apply([_Kept(each)], [])
    except MigratorError as exc:
        return exc.found
    return None


@dataclass(frozen=True)
class _Kept:
    """A record of the log as the quarantine has it, as much of a Message as the engine asks for."""

    held: Held

    def topic(self) -> str:
        return self.held.topic

    def partition(self) -> int:
        return self.held.partition

    def offset(self) -> int:
        return self.held.event_offset

    def key(self) -> bytes | None:
        return self.held.key

    def value(self) -> bytes | None:
        return self.held.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [(n, None if v is None else bytes.fromhex(v)) for n, v in self.held.headers]

    def timestamp(self) -> tuple[int, int]:
        time = self.held.event_time
        return (0, -1) if time is None else (1, round((time - EPOCH).total_seconds() * 1000))
