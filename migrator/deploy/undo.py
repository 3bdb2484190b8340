"""Undo a deployment as a whole: its projections swap back first, then its rollback scripts run.

Everything comes from the database, so a checkout of any age can do it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from migrator.deploy import deployment as deployments
from migrator.deploy import rollback
from migrator.deploy.deployment import Deployment, State
from migrator.errors import Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.ledger import Entry
from migrator.postgres.locks import Fence, deployer_lock
from migrator.projections.swap import Swapped

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class Stays:
    """What a rollback leaves as it is, and why."""

    entry: Entry
    why: str


@dataclass(frozen=True)
class Plan:
    """What of a deployment would be undone: cut-overs at one instant, then revisions, newest first.

    `losses` says for each revision what its script loses, `stays` what cannot be undone or may not.
    """

    deployment: Deployment
    swap_back: rollback.Plan | None
    revisions: tuple[Entry, ...]
    stays: tuple[Stays, ...]
    losses: dict[str, tuple[str, ...]]
    statements: tuple[str, ...]

    @property
    def cut_overs(self) -> tuple[Entry, ...]:
        return self.swap_back.entries if self.swap_back else ()

    @property
    def behind(self) -> dict[str, int]:
        return self.swap_back.behind if self.swap_back else {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order in which they are undone."""
        return (*self.cut_overs, *self.revisions)


@dataclass(frozen=True)
class Undone:
    """What was undone, and how the deployment has ended."""

    deployment: Deployment
    undone: tuple[Entry, ...]
    swapped: Swapped | None


def newest(settings: Settings) -> Deployment | None:
    """The deployment that did the last thing which still stands; None where a command by hand did.

    Read-only. What could not be undone of a deployment that was rolled back does not count.
    """
    with connect(settings, "rollback plan") as conn:
        conn.read_only = True
        entries = ledger.entries(conn)
        undone = {entry.undoes for entry in entries}
        for entry in reversed(entries):
            if entry.act not in ("up", "cut-over") or entry.entry in undone:
                continue
            found = deployments.of_run(conn, entry.run)
            if found is None or found.state != "rolled-back":
                return found
    return None


def plan(
    settings: Settings, number: int, *, accept_loss: bool = False, as_far_as_safe: bool = False
) -> Plan:
    """Say what undoing the deployment would do; read-only.

    `as_far_as_safe` leaves what would lose data, or cannot be undone, and says so. A first cut-over
    stays in any case: nothing was live before it.

    Raises:
        UsageError: there is no such deployment.
        Refused: it is rolled back already, something was deployed on top of it, a script would lose
            data and `accept_loss` is not given, or something cannot be undone.
    """
    with connect(settings, "rollback plan") as conn:
        conn.read_only = True
        found = deployments.numbered(conn, number)
        if found.state == "rolled-back":
            raise Refused(
                f"deployment {number} was rolled back already",
                expected="one that still stands",
                next_step="migrator history shows what stands",
            )
        entries = ledger.entries(conn)
        mine = deployments.entries_of(entries, found)[::-1]
        revisions = _newest(entries, mine, found)
        cut_overs = [e for e in mine if e.act == "cut-over"]
        first = [e for e in cut_overs if e.replaced_build is None]
        back = tuple(e for e in cut_overs if e.replaced_build is not None)
        swap_back = rollback.swap_back(conn, settings, back) if back else None
    stays = [
        Stays(e, f"build {e.build} of {e.subject} was its first: nothing was live before it")
        for e in first
    ]
    undone, left, losses = _revisions(revisions, accept_loss, as_far_as_safe, number)
    from migrator.migrations import undo

    statements = [*(swap_back.statements if swap_back else ())]
    statements += [undo.shown(settings, entry) for entry in undone]
    return Plan(found, swap_back, tuple(undone), (*stays, *left), losses, tuple(statements))


def _newest(entries: list[Entry], mine: list[Entry], found: Deployment) -> list[Entry]:
    """Its revisions, newest first; they must be the newest that stand."""
    revisions = [e for e in mine if e.act == "up"]
    undone = {entry.undoes for entry in entries}
    standing = [e for e in entries if e.act == "up" and e.entry not in undone]
    later = [
        e for e in standing if e.run != found.run and revisions and e.entry > revisions[-1].entry
    ]
    if later:
        names = ", ".join(e.subject for e in later)
        raise Refused(
            f"revision {names} was applied after deployment {found.deployment}, and may stand on it",
            expected="the newest first",
            next_step=f"migrator rollback --to {later[0].revises}, then this again"
            if later[0].revises
            else "migrator history",
            later=[e.subject for e in later],
        )
    return revisions


def _revisions(
    revisions: list[Entry], accept_loss: bool, as_far_as_safe: bool, number: int
) -> tuple[list[Entry], list[Stays], dict[str, tuple[str, ...]]]:
    from migrator.migrations import losses, undo

    undone: list[Entry] = []
    lost: dict[str, tuple[str, ...]] = {}
    for at, entry in enumerate(revisions):
        try:
            found = losses.of(undo.script_of(entry))
        except Refused as exc:
            if not as_far_as_safe:
                raise
            return undone, _stay(revisions[at:], exc.found), lost
        if found and as_far_as_safe:
            why = f"the rollback script of {entry.subject} loses {', '.join(found)}"
            return undone, _stay(revisions[at:], why), lost
        if found:
            lost[entry.subject] = found
        undone.append(entry)
    if lost and not accept_loss:
        lines = "".join(f"\n  {name}: {', '.join(what)}" for name, what in lost.items())
        raise Refused(
            f"rolling deployment {number} back loses data:{lines}",
            expected="nothing to be lost, or --accept-loss",
            next_step=f"migrator rollback --deployment {number} --accept-loss; to swap the "
            "projections back alone: migrator rollback --projection NAME",
            losses={name: list(what) for name, what in lost.items()},
        )
    return undone, [], lost


def _stay(entries: list[Entry], why: str) -> list[Stays]:
    first, *below = entries
    return [Stays(first, why), *(Stays(e, f"{first.subject} stands on it") for e in below)]


def undo(
    settings: Settings,
    planned: Plan,
    *,
    reason: str,
    instant: bool = False,
    fence: Fence | None = None,
    progress: Callable[[rollback.Step], None] = lambda _step: None,
) -> Undone:
    """Carry the plan out, record it with its reason, and end the deployment.

    The projections swap back at one instant, or none does; `instant` is as in `rollback`. Interrupted, or after a failure, the same
    command goes on with what is left. A caller that holds the deployer lock gives its `fence`.

    Raises:
        UsageError: the reason is empty.
        Refused: what stands has changed since the plan was made, or a script cannot be run.
        Busy: the deployer lock or the tables were not to be had before the deadline.
        MigratorError: a script failed; what was undone before it stays undone.
    """
    if not reason.strip():
        raise UsageError("a rollback needs a reason", expected='--reason "why"')
    from migrator.migrations.up import Waiting

    taken = (
        nullcontext(fence)
        if fence
        else deployer_lock(settings, "deploy", waiting=lambda holder: progress(Waiting(holder)))
    )
    if planned.swap_back and not instant:
        rollback.refuse_unknown(planned.swap_back)
    number, run, swapped = planned.deployment.deployment, uuid4(), None
    with taken as held:
        with connect(settings, "rollback", autocommit=True) as conn:
            if deployments.numbered(conn, number).is_unfinished:
                # From here on `migrator deploy` does not go forward with it any more.
                error = planned.deployment.error
                deployments.turn(conn, number, "rolling-back", error=error, reason=reason)
        revisions = rollback.Plan(planned.revisions, (), {}) if planned.revisions else None
        for part in filter(None, (planned.swap_back, revisions)):
            done = rollback.rollback(
                settings,
                part,
                reason=reason,
                instant=instant,
                run=run,
                fence=held,
                progress=progress,
            )
            swapped = swapped or done.swapped
        with connect(settings, "rollback", autocommit=True) as conn:
            state: State = "rollback-failed" if _leaves_contract(planned) else "rolled-back"
            error = planned.deployment.error
            ended = deployments.turn(conn, number, state, error=error, reason=reason)
    return Undone(ended, planned.entries, swapped)


def _leaves_contract(planned: Plan) -> bool:
    """Whether something stays that the release before cannot live with."""
    return any(each.entry.phase == "contract" for each in planned.stays)
