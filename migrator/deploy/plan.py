"""What a deployment would do: the pending revisions and the changed projections; and its hash.

The hash names the plan: a rehearsal is of a plan, and an interrupted deployment goes on with its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import changes, registry

if TYPE_CHECKING:
    from migrator.migrations.revision import Phase
    from migrator.settings import Settings


@dataclass(frozen=True)
class PlannedRevision:
    """A revision that is to be applied."""

    revision: str
    message: str
    source_hash: str


@dataclass(frozen=True)
class PlannedProjection:
    """A projection that is to be rebuilt, and why."""

    projection: str
    definition_hash: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Revisions in the order they are applied in, and projections by name."""

    phase: Phase
    revisions: tuple[PlannedRevision, ...]
    projections: tuple[PlannedProjection, ...]

    @property
    def is_empty(self) -> bool:
        return not self.revisions and not self.projections

    @property
    def hash(self) -> str:
        """SHA-256 of the phase, the revisions' source hashes and the projections' definition hashes."""
        said = {
            "phase": self.phase,
            "revisions": [[each.revision, each.source_hash] for each in self.revisions],
            "projections": [[each.projection, each.definition_hash] for each in self.projections],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(said: Mapping[str, Any]) -> Plan:
    """The plan that `as_json` has written."""
    return Plan(
        said["phase"],
        tuple(PlannedRevision(**each) for each in said["revisions"]),
        tuple(PlannedProjection(**each) for each in said["projections"]),
    )


def read(settings: Settings, *, phase: Phase = "expand") -> Plan:
    """Compare the checkout with the database; read-only, takes no lock, reads no topic.

    A contract deployment rebuilds nothing. A folder that is not there holds nothing.

    Raises:
        UsageError: a file does not load.
        Refused: the files, or files and database, do not fit together.
    """
    return Plan(phase, tuple(_revisions(settings, phase)), tuple(_projections(settings, phase)))


def _revisions(settings: Settings, phase: Phase) -> Iterator[PlannedRevision]:
    if not settings.migrations_dir.is_dir():
        return
    from migrator.migrations import history, up

    for each in up.survey(settings, history.read(settings), phase=phase).todo:
        yield PlannedRevision(each.id, each.message, each.source_hash)


def _projections(settings: Settings, phase: Phase) -> Iterator[PlannedProjection]:
    if phase == "contract" or not settings.projections_dir.is_dir():
        return
    changed = changes.find(settings)
    if changed:
        defined = registry.load(settings.projections_dir)
        for each in changed:
            yield PlannedProjection(each.projection, defined[each.projection].hash, each.why)


@dataclass(frozen=True)
class Standing:
    """What stands: each applied revision's source hash, each live build's definition hash."""

    revisions: Mapping[str, str | None]
    projections: Mapping[str, str]


def standing(settings: Settings) -> Standing:
    """Read what stands; read-only."""
    with connect(settings, "plan") as conn:
        conn.read_only = True
        entries = ledger.entries(conn)
        undone = {entry.undoes for entry in entries}
        live = builds.every(conn) if ledger.exists(conn) else []
    return Standing(
        {
            e.subject: e.source_hash
            for e in entries
            if e.act in ("up", "baseline") and e.entry not in undone
        },
        {each.projection: each.definition_hash for each in live if each.state == "live"},
    )


def differences(begun: Plan, now: Plan, standing: Standing) -> list[str]:
    """Why a deployment that began with one plan cannot go on with what is to do now; pure.

    Empty where it can: what it planned is done or still to do, as it was, and nothing else is to do.
    """
    return [
        *_of("revision", _hashes(begun)[0], _hashes(now)[0], standing.revisions),
        *_of("projection", _hashes(begun)[1], _hashes(now)[1], standing.projections),
    ]


def _hashes(plan: Plan) -> tuple[dict[str, str], dict[str, str]]:
    return (
        {each.revision: each.source_hash for each in plan.revisions},
        {each.projection: each.definition_hash for each in plan.projections},
    )


def _of(
    kind: str, begun: dict[str, str], now: dict[str, str], done: Mapping[str, str | None]
) -> Iterator[str]:
    for name, planned in begun.items():
        if name in now and now[name] != planned:
            yield f"{kind} {name} has changed since"
        elif name not in now and done.get(name) != planned:
            yield f"{kind} {name} is not to be deployed any more"
    yield from (f"{kind} {name} is to be deployed, too" for name in now if name not in begun)
