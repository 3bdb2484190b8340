"""`migrator deploy`: one resumable deployment, from lint to health checks, one row that holds it all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from migrator import logs
from migrator.deploy import contract, going_back, plan, steps
from migrator.deploy import deployment as deployments
from migrator.deploy.announce import announced
from migrator.deploy.deployment import Deployment, State, StepRow
from migrator.deploy.plan import Plan
from migrator.deploy.steps import Began, Ended, Job, Options, StepBegan
from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock

if TYPE_CHECKING:
    from migrator.migrations.revision import Phase
    from migrator.settings import Settings

Told = Callable[[Any], None]


@dataclass(frozen=True)
class Outcome:
    """How a deploy ended. `deployment` is None where nothing was to do."""

    deployment: Deployment | None
    steps: tuple[StepRow, ...]


def deploy(
    settings: Settings,
    *,
    phase: Phase = "expand",
    options: Options | None = None,
    told: Told = lambda _said: None,
) -> Outcome:
    """Carry a deployment out, or go on with the one that was interrupted.

    With nothing to do, it takes no lock and writes nothing. Killed anywhere, or after a failure, the
    same call goes on at the step where it stopped. `told` hears `Began`, `StepBegan`, `StepEnded`, and
    what `up`, a rebuild and a rollback tell meanwhile.

    Raises:
        UsageError: a step or a name to allow that is not known.
        Refused: another plan's deployment is unfinished, contract's time has not come, or a step was
            refused; the message names the way on.
        Busy: another deployment runs, or locks lasted until the deadline.
        DeployRolledBack: it was not healthy, and is undone.
        RollbackFailed: it was not healthy, and something is left to be undone by hand.
        MigratorError: a step failed.
    """
    options = options or Options()
    steps.allowed(options.allow, options.reason)
    steps.refuse_unknown(phase, options.until)
    planned = plan.read(settings, phase=phase)
    if planned.is_empty and _unfinished(settings) is None:
        return Outcome(None, ())
    from migrator.migrations.up import LOCK, Waiting

    with deployer_lock(settings, LOCK, waiting=lambda holder: told(Waiting(holder))) as fence:
        # Another run may have done all of it while this one waited.
        planned = plan.read(settings, phase=phase)
        found = _unfinished(settings)
        if planned.is_empty and found is None:
            return Outcome(None, ())
        row, resumed = _begun(settings, planned, found, options)
        began = Began(row, resumed)
        with logs.bound(deployment=row.deployment), announced(settings, began):
            told(began)
            allow = options.allow | frozenset(row.allowed or ())
            return _carry_out(Job(settings, row, fence, options, allow, told))


def _unfinished(settings: Settings) -> Deployment | None:
    with connect(settings, "plan") as conn:
        conn.read_only = True
        return deployments.unfinished(conn)


def _begun(
    settings: Settings, planned: Plan, found: Deployment | None, options: Options
) -> tuple[Deployment, bool]:
    """The row to work on: the unfinished one, or a new one."""
    if found is not None and found.state == "rolling-back":
        return found, True
    if found is not None and _is_the_same(settings, found, planned):
        with connect(settings, "deploy", autocommit=True) as conn:
            return deployments.turn(conn, found.deployment, "running"), True
    if planned.phase == "contract":
        contract.refuse(settings, allow=options.allow, reason=options.reason)
    with connect(settings, "deploy", autocommit=True) as conn:
        return deployments.begin(
            conn, planned, uuid4(), reason=options.reason, allowed=options.allow
        ), False


def _is_the_same(settings: Settings, found: Deployment, planned: Plan) -> bool:
    """Whether the unfinished deployment goes on; one that has changed nothing makes way for another.

    Raises:
        Refused: it is of another plan, and has changed something.
    """
    differ = plan.differences(found.plan, planned, plan.standing(settings))
    if found.phase != planned.phase:
        differ = [f"it is of phase {found.phase}"]
    if not differ:
        return True
    with connect(settings, "deploy", autocommit=True) as conn:
        if deployments.entries_of(ledger.entries(conn), found):
            raise _another_plan(found, differ)
        deployments.turn(
            conn, found.deployment, "failed", error=f"another plan came: {'; '.join(differ)}"
        )
    return False


def _another_plan(found: Deployment, differ: list[str]) -> Refused:
    number = found.deployment
    return Refused(
        f"deployment {number} is unfinished, at step {found.step}, and this checkout is of another "
        "plan:" + "".join(f"\n  {each}" for each in differ),
        expected=f"the plan that deployment {number} began with ({found.git_sha or 'outside git'})",
        next_step="deploy that checkout to finish it; or undo it: migrator rollback --deployment "
        f"{number}; or leave what it did and go on with this plan: migrator deploy --abandon "
        f'{number} --reason "...", then migrator deploy',
        deployment=number,
        differences=differ,
    )


def abandon(settings: Settings, number: int, reason: str) -> Deployment:
    """Give an unfinished deployment up; what it did stays as it is.

    Raises:
        UsageError: there is no such deployment, or no reason.
        Refused: it has ended already.
        Busy: a deployment runs.
    """
    if not reason.strip():
        raise UsageError("to abandon a deployment needs a reason", expected='--reason "why"')
    from migrator.migrations.up import LOCK

    with (
        deployer_lock(settings, LOCK, deadline_s=0),
        connect(settings, "deploy", autocommit=True) as conn,
    ):
        found = deployments.numbered(conn, number)
        return deployments.turn(conn, number, "abandoned", error=found.error, reason=reason)


def _carry_out(job: Job) -> Outcome:
    if job.deployment.state == "rolling-back":
        going_back.go_back(job, job.deployment.error or "it was being rolled back")
    for name, step in steps.of(job.deployment.phase).items():
        done = _rows(job).get(name)
        if done is None or not done.is_over:
            ended = _run(job, name, step)
            if ended.unhealthy:
                going_back.go_back(job, ended.said)
        if name == job.options.until:
            return _ended(job, "stopped")
    return _ended(job, "done")


def _ended(job: Job, state: State) -> Outcome:
    with connect(job.settings, "deploy", autocommit=True) as conn:
        row = deployments.turn(conn, job.deployment.deployment, state)
        return Outcome(row, tuple(deployments.steps(conn, row.deployment).values()))


def _rows(job: Job) -> dict[str, StepRow]:
    with connect(job.settings, "deploy", autocommit=True) as conn:
        return deployments.steps(conn, job.deployment.deployment)


def _run(job: Job, name: str, step: steps.Step) -> Ended:
    """Do one step under the lock, and say how it ended."""
    job.fence.renew()
    with connect(job.settings, "deploy", autocommit=True) as conn:
        deployments.step_begins(conn, job.deployment.deployment, name)
    job.told(StepBegan(name))
    try:
        ended = step(job)
    except MigratorError as exc:
        _failed(job, name, exc)
        raise
    outcome: deployments.Outcome = "skipped" if ended.skipped else "done"
    steps.note(job, name, "failed" if ended.unhealthy else outcome, ended)
    return ended


def _failed(job: Job, name: str, exc: MigratorError) -> None:
    """Keep why the step failed; a deployment that has changed nothing ends here, others go on later."""
    steps.note(job, name, "failed", Ended(exc.found, exc.as_json()))
    with connect(job.settings, "deploy", autocommit=True) as conn:
        changed = deployments.entries_of(ledger.entries(conn), job.deployment)
        state: State = "stopped" if changed else "failed"
        deployments.turn(conn, job.deployment.deployment, state, error=f"{name}: {exc.found}")
