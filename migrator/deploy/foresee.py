"""What `migrator deploy` would do: its steps, every statement, every projection and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrator.deploy import contract, plan, steps
from migrator.deploy import deployment as deployments
from migrator.deploy.deployment import Deployment
from migrator.deploy.plan import Plan
from migrator.deploy.steps import Options
from migrator.postgres.connect import connect

if TYPE_CHECKING:
    from migrator.migrations.plan import Plan as UpPlan
    from migrator.migrations.revision import Phase
    from migrator.migrations.up import Preview
    from migrator.projections.preflight import Preflight
    from migrator.projections.rebuild import Planned
    from migrator.settings import Settings


@dataclass(frozen=True)
class Foreseen:
    """What a deploy would do: the plan, its SQL, and what a rebuild's preflight finds.

    `goes_on` is the unfinished deployment that it would go on with.
    """

    plan: Plan
    goes_on: Deployment | None
    steps: tuple[str, ...]
    up: tuple[UpPlan, tuple[Preview, ...]] | None
    rebuild: tuple[tuple[Planned, ...], Preflight] | None


def preview(
    settings: Settings, *, phase: Phase = "expand", options: Options | None = None
) -> Foreseen:
    """Say what `deploy` would do; no lock, nothing written.

    Raises:
        UsageError, Refused: as `deploy`.
    """
    options = options or Options()
    allowed = steps.allowed(options.allow, options.reason)
    steps.refuse_unknown(phase, options.until)
    planned = plan.read(settings, phase=phase)
    with connect(settings, "plan") as conn:
        conn.read_only = True
        found = deployments.unfinished(conn)
    if phase == "contract" and found is None and not planned.is_empty:
        contract.refuse(settings, allow=options.allow, reason=options.reason)
    return Foreseen(
        planned,
        found,
        tuple(steps.of(phase)),
        _foreseen_up(settings, planned, allowed.up, options.reason),
        _foreseen_rebuild(settings, planned, allowed.rebuild, options),
    )


def _foreseen_up(
    settings: Settings, planned: Plan, allow: Iterable[str], reason: str | None
) -> tuple[UpPlan, tuple[Preview, ...]] | None:
    if not planned.revisions:
        return None
    from migrator.migrations import up

    return up.preview(settings, phase=planned.phase, allow=frozenset(allow), reason=reason)


def _foreseen_rebuild(
    settings: Settings, planned: Plan, allow: frozenset[str], options: Options
) -> tuple[tuple[Planned, ...], Preflight] | None:
    if not planned.projections:
        return None
    from migrator.projections import rebuild

    names = [each.projection for each in planned.projections]
    asked = rebuild.Options(
        cut_over=False,
        allow=allow,
        max_mb_per_s=options.max_mb_per_s,
        quarantine=options.quarantine,
    )
    statements, seen = rebuild.plan(settings, names, asked)
    return tuple(statements), seen
