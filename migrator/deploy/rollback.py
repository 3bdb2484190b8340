"""Go back: swap archived builds back, or run the rollback scripts that the database keeps.

Everything comes from the database itself, so a checkout of any age can do it. What is undone becomes
a new entry of the ledger that names the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid4

from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.postgres.ledger import Entry
from migrator.postgres.locks import Fence, deployer_lock
from migrator.projections import build as builds
from migrator.projections import swap, swap_sql, tail
from migrator.projections.build import Build
from migrator.projections.move import Move
from migrator.projections.swap import Swapped

if TYPE_CHECKING:
    from migrator.migrations.retry import HeldOff, Killed, Retry
    from migrator.migrations.up import Waiting
    from migrator.settings import Settings

Step: TypeAlias = "Entry | Waiting | Retry | HeldOff | Killed"


@dataclass(frozen=True)
class Plan:
    """What a rollback would undo, newest first: either cut-overs, all at one instant, or revisions.

    `behind` says for each projection how many events its archived build lacks that the live one has;
    `unknown` names those of them whose definition is not in this checkout, with the commit, if known,
    that the build was made from.
    """

    entries: tuple[Entry, ...]
    statements: tuple[str, ...]
    behind: dict[str, int]
    unknown: dict[str, str | None] = field(default_factory=dict)

    @property
    def is_of_projections(self) -> bool:
        return self.entries[0].act == "cut-over"


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did."""

    run: UUID
    undone: tuple[Entry, ...]
    swapped: Swapped | None


def plan(settings: Settings, *, projections: Sequence[str] = (), to: str | None = None) -> Plan:
    """Choose what to undo; read-only. By default it is the last act that still stands.

    Raises:
        UsageError: a projection or revision that the ledger does not know.
        Refused: there is nothing to undo, or it cannot be undone; the message says why.
    """
    with connect(settings, "rollback plan") as conn:
        conn.read_only = True
        entries = ledger.entries(conn)
        undone = {entry.undoes for entry in entries}
        standing = [
            e for e in reversed(entries) if e.act in ("up", "cut-over") and e.entry not in undone
        ]
        chosen = _chosen(standing, projections, to)
        if chosen[0].act == "cut-over":
            return swap_back(conn, settings, chosen)
    from migrator.migrations import undo

    return Plan(tuple(chosen), tuple(undo.shown(settings, entry) for entry in chosen), {})


def swap_back(conn: Connection, settings: Settings, cut_overs: Sequence[Entry]) -> Plan:
    """The plan that undoes these cut-overs, at one instant; read-only.

    Raises:
        Refused: one was the first, or the builds have moved on.
    """
    moves = [move_back(conn, entry) for entry in cut_overs]
    statements = [f"{line};" for line in swap_sql.script(conn, settings, moves)]
    lost = {m.incoming.projection: tail.behind(conn, m) for m in moves}
    unknown = {
        m.incoming.projection: builds.git_sha(conn, m.incoming)
        for m in tail.with_definitions(settings, moves)
        if m.definition is None and lost[m.incoming.projection]
    }
    return Plan(tuple(cut_overs), tuple(statements), lost, unknown)


def _chosen(standing: list[Entry], projections: Sequence[str], to: str | None) -> list[Entry]:
    if projections and to is not None:
        raise UsageError("--projection and --to are both given", expected="one of them")
    if projections:
        return [_last_cut_over(standing, name) for name in dict.fromkeys(projections)]
    if to is not None:
        return _revisions_above(standing, to)
    if not standing:
        raise Refused(
            "there is nothing to roll back",
            expected="a revision or a cut-over in the ledger that still stands",
            next_step="migrator history shows what was done",
        )
    last = standing[0]
    return [e for e in standing if e.run == last.run] if last.act == "cut-over" else [last]


def _last_cut_over(standing: list[Entry], name: str) -> Entry:
    cut_overs = [e for e in standing if e.act == "cut-over"]
    for entry in cut_overs:
        if entry.subject == name:
            return entry
    raise UsageError.unknown(
        "projection", name, {e.subject for e in cut_overs}, next_step="migrator history"
    )


def _revisions_above(standing: list[Entry], to: str) -> list[Entry]:
    revisions = [e for e in standing if e.act == "up"]
    above: list[Entry] = []
    for entry in revisions:
        if entry.subject == to:
            break
        above.append(entry)
        if entry.revises == to:
            break
    else:
        known = {e.subject for e in revisions} | {e.revises for e in revisions if e.revises}
        raise UsageError.unknown("revision", to, known, next_step="migrator history")
    if not above:
        raise Refused(f"{to} is the newest revision already", expected="an older one after --to")
    return above


def move_back(conn: Connection, entry: Entry) -> Move:
    """The way back from a cut-over: the build it archived, in place of the one it made live.

    Read-only.

    Raises:
        Refused: it was the first, or the builds have moved on.
    """
    if entry.replaced_build is None:
        raise Refused(
            f"the cut-over of {entry.subject} to build {entry.build} was its first",
            expected="an archived build to go back to",
            next_step="correct the projection and rebuild it (migrator rebuild-projections "
            f"--projection {entry.subject}); to undo a revision instead: migrator rollback --to REV",
        )
    archived = _held(conn, entry.subject, "archived", entry.replaced_build)
    live = _held(conn, entry.subject, "live", entry.build)
    return Move(archived, live, undoes=entry.entry)


def _held(conn: Connection, projection: str, state: builds.State, build: int | None) -> Build:
    for found in builds.find(conn, projection, [state]):
        if found.build == build:
            return found
    raise Refused(
        f"build {build} of {projection} is not {state} any more",
        expected=f"an {state} build" if state == "archived" else "the live build",
        next_step="migrator status shows every build",
    )


def last_cut_overs(conn: Connection) -> list[Entry]:
    """Each projection's last cut-over that still stands, newest first; read-only."""
    entries = ledger.entries(conn)
    undone = {entry.undoes for entry in entries}
    standing = [e for e in reversed(entries) if e.act == "cut-over" and e.entry not in undone]
    return list({e.subject: e for e in reversed(standing)}.values())[::-1]


def rollback(
    settings: Settings,
    planned: Plan,
    *,
    reason: str,
    instant: bool = False,
    run: UUID | None = None,
    fence: Fence | None = None,
    progress: Callable[[Step], None] = lambda _step: None,
) -> RolledBack:
    """Carry the plan out and record it with its reason.

    An archived build that is behind the live one is first brought up to it, by the definition that it
    was made of: readers miss no event. With `instant` they go back at once, and it is brought up
    afterwards; where that definition is not in this checkout, by its own release's projector.

    `progress` hears each entry as it is undone, and whom a revision waits for meanwhile.

    Projections swap back at one instant, or not at all. Revisions are undone one by one, newest
    first, each in its own transaction; after a failure the same command goes on with what is left.
    A caller that holds the deployer lock already gives its `fence`.

    Raises:
        Refused: what stands has changed since the plan was made, or a script cannot be run.
        Busy: the deployer lock or the tables were not to be had before the deadline.
    """
    if not reason.strip():
        raise UsageError("a rollback needs a reason", expected='--reason "why"')
    from migrator.migrations.up import Waiting

    if not instant:
        refuse_unknown(planned)
    run = run or uuid4()
    taken = (
        nullcontext(fence)
        if fence
        else deployer_lock(settings, "deploy", waiting=lambda holder: progress(Waiting(holder)))
    )
    with taken as held:
        if planned.is_of_projections:
            swapped = _swap_back(settings, planned, run, reason, instant=instant)
            for entry in planned.entries:
                progress(entry)
            return RolledBack(run, planned.entries, swapped)
        from migrator.migrations import undo

        for entry in planned.entries:
            undo.undo_revision(settings, entry, reason=reason, run=run, fence=held, told=progress)
            progress(entry)
    return RolledBack(run, planned.entries, None)


def _swap_back(
    settings: Settings, planned: Plan, run: UUID, reason: str, *, instant: bool
) -> Swapped:
    with connect(settings, "rollback", statement_timeout_ms=0) as conn:
        conn.autocommit = True
        moves = [move_back(conn, entry) for entry in planned.entries]
        known = tail.with_definitions(settings, moves)
        if instant:
            swapped = swap.swap(conn, settings, moves, run=run, reason=reason)
            return _brought_up(conn, settings, swapped, known)
        try:
            applied = tail.bring(conn, settings, known)
        except MigratorError as exc:
            raise _not_brought_up(exc) from exc
        swapped = swap.swap(conn, settings, known, run=run, reason=reason)
        return replace(swapped, caught_up=applied + swapped.caught_up)


def _brought_up(
    conn: Connection, settings: Settings, swapped: Swapped, known: Sequence[Move]
) -> Swapped:
    """Apply what the builds that are live again lack; what keeps us from it is told and no failure."""
    try:
        return replace(swapped, caught_up=tail.bring_live(conn, settings, known))
    except MigratorError as exc:
        note = f"the events that it lacks are not all applied: {exc.found}"
        return replace(swapped, notes=(*swapped.notes, note))


def _not_brought_up(exc: MigratorError) -> MigratorError:
    """The same error, which says how to go back all the same."""
    return type(exc)(
        f"the archived build cannot be brought up to the live one: {exc.found}",
        expected=exc.expected,
        next_step="nothing has changed; to go back without these events, --instant: they stay in the "
        "topic, and migrator follow applies them later",
        **exc.data,
    )


def refuse_unknown(planned: Plan) -> None:
    """Refuse to show readers an older state where nobody here can bring it up to date first.

    Raises:
        Refused: an archived build is behind, and its definition is not in this checkout.
    """
    builds_of = {entry.subject: entry.replaced_build for entry in planned.entries}
    for name, sha in planned.unknown.items():
        release = f", commit {sha}" if sha else ""
        raise Refused(
            f"build {builds_of[name]} of {name} lacks the {planned.behind[name]:,} newest events, and "
            "the definition that it was made of is not in this checkout",
            expected=f"the projections of the release that made it{release}",
            next_step="run the same command in a checkout of that release; or go back at once with "
            "--instant: no event is lost, that release's migrator follow applies them",
            projection=name,
            build=builds_of[name],
            behind=planned.behind[name],
            git_sha=sha,
        )
