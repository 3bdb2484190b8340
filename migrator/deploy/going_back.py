"""Automatic rollback: undo a deployment that is not healthy, as far as that loses nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from migrator.deploy import deployment as deployments
from migrator.deploy import undo
from migrator.deploy.deployment import Deployment
from migrator.deploy.steps import Ended, Job, StepBegan, StepEnded, note
from migrator.errors import DeployRolledBack, MigratorError, RollbackFailed
from migrator.postgres.connect import connect

STEP = "rollback"


def go_back(job: Job, cause: str) -> NoReturn:
    """Undo the deployment as far as that loses nothing; always raises, as it did not go well.

    Raises:
        DeployRolledBack: nothing is left that the release before cannot live with.
        RollbackFailed: something is; the message says what to do by hand.
    """
    number, settings = job.deployment.deployment, job.settings
    reason = f"not healthy: {cause}"
    with connect(settings, "deploy", autocommit=True) as conn:
        deployments.turn(conn, number, "rolling-back", error=cause)
        deployments.step_begins(conn, number, STEP)
    job.told(StepBegan(STEP))
    try:
        job.fence.renew()
        planned = undo.plan(settings, number, as_far_as_safe=True)
        with connect(settings, "deploy", autocommit=True) as conn:
            said = _said_of(planned)
            row = deployments.step_ends(conn, number, STEP, "done", said, _detail_of(planned))
        # This checkout has not the definitions of the builds that readers need now.
        done = undo.undo(
            settings, planned, reason=reason, instant=True, fence=job.fence, progress=job.told
        )
    except MigratorError as exc:
        note(job, STEP, "failed", Ended(exc.found, exc.as_json()))
        with connect(settings, "deploy", autocommit=True) as conn:
            deployments.turn(conn, number, "rollback-failed", error=cause)
        raise RollbackFailed(
            f"deployment {number} is not healthy ({cause}), and its rollback failed: {exc.found}",
            expected=exc.expected,
            next_step=f"{exc.next_step}; then migrator rollback --deployment {number} goes on".lstrip(
                "; "
            ),
            deployment=number,
        ) from exc
    job.told(StepEnded(row))
    raise _gone_back(done.deployment, planned, cause)


def _said_of(planned: undo.Plan) -> str:
    names = [f"{e.subject} to build {e.replaced_build}" for e in planned.cut_overs]
    names += [f"revision {e.subject}" for e in planned.revisions]
    stays = f"; stays: {', '.join(s.entry.subject for s in planned.stays)}" if planned.stays else ""
    return f"{'back: ' + ', '.join(names) if names else 'nothing to undo'}{stays}"


def _detail_of(planned: undo.Plan) -> dict[str, Any]:
    return {
        "undone": [entry.entry for entry in planned.entries],
        "stays": [{"entry": s.entry.entry, "why": s.why} for s in planned.stays],
        "behind": planned.behind,
    }


def _gone_back(ended: Deployment, planned: undo.Plan, cause: str) -> MigratorError:
    number = ended.deployment
    left = "".join(f"\n  {each.why}" for each in planned.stays)
    back = ", ".join(f"{e.subject} is live as build {e.replaced_build}" for e in planned.cut_overs)
    undone = ", ".join(e.subject for e in planned.revisions)
    did = (
        "; ".join(filter(None, [back, f"undone: {undone}" if undone else ""])) or "nothing to undo"
    )
    if ended.state == "rollback-failed":
        return RollbackFailed(
            f"deployment {number} is not healthy ({cause}); {did}; what is left the release before "
            f"cannot live with:{left}",
            expected="contract revisions that can be undone without a loss",
            next_step="go forward with a correction; or take the loss: migrator rollback "
            f'--deployment {number} --accept-loss --reason "..."',
            deployment=number,
        )
    return DeployRolledBack(
        f"deployment {number} was not healthy and is rolled back: {cause}\n{did}"
        + (f"\nstays, and does the release before no harm:{left}" if left else ""),
        expected="every health check to pass for its window",
        next_step=f"correct the cause, then migrator deploy; migrator history shows deployment {number}",
        deployment=number,
        undone=[e.subject for e in planned.entries],
        stays=[s.entry.subject for s in planned.stays],
    )
