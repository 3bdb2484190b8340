"""How things stand: revisions, builds, positions and lag, and whether there is work to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from migrator.errors import CannotConnect, MigratorError
from migrator.postgres import ledger, locks
from migrator.postgres.connect import Connection, connect, shown
from migrator.postgres.ledger import Entry
from migrator.postgres.locks import Holder
from migrator.projections import build as builds
from migrator.projections import news, quarantine, registry
from migrator.projections.build import UNFINISHED, Build, Position
from migrator.projections.news import News

if TYPE_CHECKING:
    from migrator.settings import Settings

KAFKA_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Revisions:
    """How files and database compare: applied in both, pending in files, unknown in the ledger."""

    version: str | None
    applied: int
    pending: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class BuildStatus:
    """One build with its positions. `lag_events` is to the topic's end now; None if nobody knows.

    `quarantined` is how many events it goes without. `running` is who works on it now, and `news` is
    what that run, or the last one, has said of its replay.
    """

    build: Build
    positions: tuple[Position, ...]
    lag_events: int | None = None
    quarantined: int = 0
    running: Holder | None = None
    news: tuple[News, ...] = ()

    @property
    def left_events(self) -> int:
        """How many are still to be read: as far as is committed, or as a running replay says."""
        heard = {(n.topic, n.partition): n.next_offset for n in self.news}
        reached = heard if self.running else {}
        return sum(
            p.end_offset - max(reached.get((p.topic, p.partition), 0), p.next_offset)
            for p in self.positions
        )


@dataclass(frozen=True)
class ProjectionStatus:
    """`pending` says why the projection needs a rebuild, and is None where it needs none."""

    name: str
    live: BuildStatus | None
    others: tuple[BuildStatus, ...]
    pending: str | None
    is_defined: bool


@dataclass(frozen=True)
class Status:
    database: str
    revisions: Revisions | None
    projections: tuple[ProjectionStatus, ...]
    last: Entry | None
    notes: tuple[str, ...]
    running: tuple[Holder, ...] = ()

    @property
    def is_pending(self) -> bool:
        revisions = self.revisions is not None and bool(self.revisions.pending)
        return revisions or any(p.pending for p in self.projections)


def status(settings: Settings) -> Status:
    """Read how things stand; changes nothing, waits for no lock, works from any checkout.

    What cannot be read (no migrations folder, no broker) becomes a note, not an error.

    Raises:
        CannotConnect: the database does not answer.
    """
    notes: list[str] = []
    with connect(settings, "status") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        entries, known = ledger.entries(conn), ledger.exists(conn)
        found = Status(
            database=shown(settings.conninfo),
            revisions=_revisions(settings, conn, notes),
            projections=_projections(settings, conn, notes, known=known),
            last=entries[-1] if entries else None,
            notes=(),
            running=tuple(locks.holders(conn)) if known else (),
        )
    return replace(_with_lag(settings, found, notes), notes=tuple(notes))


def _revisions(settings: Settings, conn: Connection, notes: list[str]) -> Revisions | None:
    from migrator.migrations import applied, history, plan

    if not settings.migrations_dir.is_dir():
        notes.append(f"there is no folder {settings.migrations_dir}: revisions are not shown")
        return None
    state = applied.read(conn, settings.migrations)
    found = plan.make(history.read(settings), state)
    return Revisions(
        version=found.version,
        applied=len(found.applied),
        pending=tuple(r.id for r in found.pending),
        unknown=found.unknown,
    )


def _projections(
    settings: Settings, conn: Connection, notes: list[str], *, known: bool
) -> tuple[ProjectionStatus, ...]:
    if settings.projections_dir.is_dir():
        defined = {n: r.hash for n, r in registry.load(settings.projections_dir).items()}
    else:
        notes.append(f"there is no folder {settings.projections_dir}: definitions are not compared")
        defined = {}
    held = builds.every(conn) if known else []
    names = sorted({*defined, *(b.projection for b in held)})
    aside, heard = quarantine.counts(conn), news.read(conn)
    running = {h.lock: h for h in (locks.holders(conn) if known else [])}
    each = [
        _build_status(
            conn, b, aside, heard.get(b.build, ()), running.get(f"rebuild {b.projection}")
        )
        for b in held
    ]
    return tuple(
        _projection(name, [b for b in each if b.build.projection == name], defined.get(name))
        for name in names
    )


def _build_status(
    conn: Connection,
    build: Build,
    aside: dict[int, int],
    heard: tuple[News, ...],
    holder: Holder | None,
) -> BuildStatus:
    running = holder if build.state in UNFINISHED else None
    if running is not None:
        # What a run before has said is no news of this one.
        heard = tuple(n for n in heard if n.heard_at >= running.since)
    return BuildStatus(
        build,
        tuple(builds.positions(conn, build.build)),
        quarantined=aside.get(build.build, 0),
        running=running,
        news=heard,
    )


def _projection(
    name: str, each: list[BuildStatus], definition_hash: str | None
) -> ProjectionStatus:
    live = next((b for b in each if b.build.state == "live"), None)
    if definition_hash is None:
        pending = None
    elif live is None:
        pending = "not built yet"
    elif live.build.definition_hash != definition_hash:
        pending = "its definition has changed"
    else:
        pending = None
    others = tuple(b for b in each if b is not live)
    return ProjectionStatus(name, live, others, pending, definition_hash is not None)


def _with_lag(settings: Settings, found: Status, notes: list[str]) -> Status:
    """Ask Kafka how far each topic of a live build reaches."""
    live = [p.live for p in found.projections if p.live is not None]
    names = {position.topic for build in live for position in build.positions}
    if not names:
        return found
    try:
        ends = _ends(settings, names)
    except (CannotConnect, MigratorError) as exc:
        notes.append(f"lag is unknown: {exc.found}")
        return found
    projections = []
    for each in found.projections:
        if each.live is None:
            projections.append(each)
            continue
        lag = sum(
            max(ends.get((p.topic, p.partition), p.next_offset) - p.next_offset, 0)
            for p in each.live.positions
        )
        projections.append(replace(each, live=replace(each.live, lag_events=lag)))
    return replace(found, projections=tuple(projections))


def _ends(settings: Settings, names: set[str]) -> dict[tuple[str, int], int]:
    kafka = settings.kafka_config
    from migrator.kafka import topics

    described = [topics.describe(kafka, name, timeout_s=KAFKA_TIMEOUT_S) for name in sorted(names)]
    return {(t.name, p.partition): p.end for t in described for p in t.partitions}
