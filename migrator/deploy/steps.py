"""The steps of a deployment, one function each: each can be done again, and does only what is left."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from migrator import logs
from migrator.deploy import deployment as deployments
from migrator.deploy.contract import ARCHIVED_BUILD
from migrator.deploy.deployment import Deployment, Outcome, StepRow
from migrator.errors import Refused, UsageError
from migrator.postgres import rehearsal as rehearsals
from migrator.postgres.connect import connect
from migrator.postgres.locks import Fence

if TYPE_CHECKING:
    from migrator.migrations.verify import Report
    from migrator.settings import Settings


@dataclass(frozen=True)
class Options:
    """What the command line may ask for."""

    until: str | None = None
    allow: frozenset[str] = frozenset()
    reason: str | None = None
    skip_drift: bool = False
    kill_blockers: bool = False
    max_mb_per_s: float | None = None
    quarantine: int = 0
    accept_diff: str | None = None
    require_rehearsal_h: float | None = None


@dataclass(frozen=True)
class Began:
    """A deployment begins, or one that was interrupted goes on."""

    deployment: Deployment
    resumed: bool


@dataclass(frozen=True)
class StepBegan:
    step: str


@dataclass(frozen=True)
class StepEnded:
    row: StepRow


@dataclass(frozen=True)
class Job:
    """One run of a deployment.

    `told` hears `Began`, `StepBegan`, `StepEnded`, and what `up`, a rebuild and a rollback tell.
    """

    settings: Settings
    deployment: Deployment
    fence: Fence
    options: Options
    allow: frozenset[str]
    told: Callable[[Any], None]

    @property
    def reason(self) -> str | None:
        return self.options.reason or self.deployment.reason


@dataclass(frozen=True)
class Ended:
    """How a step ended: what to tell of it in a line, and what to keep.

    `unhealthy` ends the deployment: it goes back.
    """

    said: str
    detail: dict[str, Any] | None = None
    skipped: bool = False
    unhealthy: bool = False


@dataclass(frozen=True)
class Allowed:
    """The names after --allow, by the step that they are for."""

    up: frozenset[str]
    rebuild: frozenset[str]


def allowed(names: Collection[str], reason: str | None) -> Allowed:
    """Sort the names after --allow; pure.

    Raises:
        UsageError: one that no step knows, or no reason beside them.
    """
    from migrator.migrations.phase_check import ALLOWED
    from migrator.projections.preflight import ALLOWABLE

    known = {*ALLOWED, *ALLOWABLE, ARCHIVED_BUILD}
    for name in names:
        if name not in known:
            raise UsageError.unknown(
                "name after --allow", name, known, next_step="docs/deploy.md#what-can-be-allowed"
            )
    if names and not (reason or "").strip():
        raise UsageError(
            f"--allow {min(names)} has no reason",
            expected='--reason "TEXT": the ledger keeps both',
        )
    return Allowed(frozenset(names).intersection(ALLOWED), frozenset(names).intersection(ALLOWABLE))


def rehearsal(job: Job) -> Ended:
    """Look for a rehearsal of this plan that passed, and is young enough.

    Raises:
        Refused: there is none.
    """
    limit_h = job.options.require_rehearsal_h or job.settings.deploy.require_rehearsal_h
    if limit_h is None:
        return Ended("none is required", skipped=True)
    with connect(job.settings, "deploy") as conn:
        found = rehearsals.latest(conn, job.deployment.plan.hash)
    age_h = found.age_s / 3600 if found else 0
    if found is not None and found.outcome == "passed" and age_h <= limit_h:
        return Ended(f"rehearsal {found.rehearsal} of this plan passed {age_h:.1f} h ago")
    if found is None:
        what = "this plan was not rehearsed"
    elif found.outcome != "passed":
        what = f"rehearsal {found.rehearsal} of this plan failed {age_h:.1f} h ago"
    else:
        what = f"rehearsal {found.rehearsal} of this plan passed {age_h:.1f} h ago"
    raise Refused(
        what,
        expected=f"a rehearsal of this plan that passed within {limit_h:g} h",
        next_step="migrator rehearse, then run the same command again",
        plan_hash=job.deployment.plan.hash,
    )


def lint(job: Job) -> Ended:
    """Lint the revisions of the plan.

    Raises:
        Refused: a finding is an error.
    """
    revisions = [each.revision for each in job.deployment.plan.revisions]
    if not revisions:
        return Ended("no revision is pending", skipped=True)
    from migrator.deploy import lint as linting

    report = linting.lint(job.settings, revisions)
    errors = [
        f"\n  {each.source.file}: {found.rule}: {found.message}"
        for each in report.linted
        for found in each.findings
        if found.severity == "error" and found.rule not in job.allow
    ]
    counts = {name: report.count(name) for name in ("warning", "notice")}
    if errors:
        raise Refused(
            f"lint found {_many(len(errors), 'error')}:{''.join(errors)}",
            expected="none: what is an error is not safe under traffic",
            next_step=f"migrator lint {' '.join(revisions)} shows the safe way for each",
        )
    warned = sum(counts.values())
    return Ended(f"{_many(len(revisions), 'revision')}, {_many(warned, 'warning')}", counts)


def verify(job: Job) -> Ended:
    """Prove that database, ledger and files belong together before anything is changed.

    Raises:
        Refused: something differs, or could not be checked.
    """
    if not job.settings.migrations_dir.is_dir():
        return Ended(f"there is no folder {job.settings.migrations_dir}", skipped=True)
    from migrator.migrations import verify as verifying

    report = verifying.verify(job.settings, with_drift=not job.options.skip_drift)
    detail = {"last_link": report.last_link}
    if report.is_clean and report.is_complete:
        skipped = [each.check for each in report.checks if each.skipped]
        without = f", without {', '.join(skipped)}" if skipped else ""
        return Ended(f"database, ledger and files belong together{without}", detail)
    raise Refused(
        f"database, ledger and files do not belong together:{_problems(report)}"
        if not report.is_clean
        else f"not everything could be checked:{_skipped(report)}",
        expected="what the revisions produce, before anything is added to it",
        next_step="migrator verify shows each with its remedy"
        if not report.is_clean
        else "migrator deploy --skip-drift says that the rest is enough",
    )


def _problems(report: Report) -> str:
    return "".join(f"\n  {f.check}: {f.found}" for f in report.findings if f.is_problem)


def _skipped(report: Report) -> str:
    return "".join(
        f"\n  {each.check}: {each.skipped}"
        for each in report.checks
        if each.skipped and not each.as_asked
    )


def checkpoint(job: Job) -> Ended:
    """Keep the database as a branch, which nothing smaller than a disaster goes back to.

    Raises:
        Busy, Refused, MigratorError: as `migrator checkpoint create`.
    """
    if not job.settings.deploy.checkpoint:
        return Ended("[deploy] checkpoint is false", skipped=True)
    if job.settings.neon.project_id is None:
        # A plain PostgreSQL copies a database only where nobody is connected, not even we.
        return Ended("the database is not on Neon", skipped=True)
    from migrator.deploy import checkpoint as checkpoints

    # A restore takes the numbers of deployments back: the run is there but once.
    name = f"deploy-{job.deployment.deployment}-{str(job.deployment.run)[:8]}"
    there = {each.name: each for each in checkpoints.every(job.settings)}
    made = there.get(name)
    if made is None or made.state != "ready":
        ttl = timedelta(days=job.settings.deploy.checkpoint_days)
        made = checkpoints.create(job.settings, name=name, ttl=ttl, fence=job.fence)
    return Ended(f"{name}, kept until {made.expires_at:%Y-%m-%d}", {"checkpoint": name})


def up(job: Job) -> Ended:
    """Apply the revisions of the plan that are still pending.

    Raises:
        Refused, Busy, MigratorError: as `migrator up`.
    """
    planned = job.deployment.plan.revisions
    if not planned:
        return Ended("no revision is pending", skipped=True)
    from migrator.migrations import up as applying

    outcome = applying.up(
        job.settings,
        phase=job.deployment.phase,
        to=planned[-1].revision,
        allow=allowed(job.allow, job.reason).up,
        kill_blockers=job.options.kill_blockers,
        reason=job.reason,
        run=job.deployment.run,
        fence=job.fence,
        progress=job.told,
    )
    applied = [each.revision for each in planned]
    return Ended(
        f"{_many(len(applied), 'revision')}, the database is at {outcome.version or 'no revision'}",
        {"revisions": applied, "version": outcome.version},
    )


def rebuild(job: Job) -> Ended:
    """Build the projections of the plan that are not live yet, and stop at verified.

    Raises:
        Refused, Busy, MigratorError: as `migrator rebuild-projections`.
    """
    wanted = {each.projection: each.definition_hash for each in job.deployment.plan.projections}
    if not wanted:
        return Ended("no projection has changed", skipped=True)
    from migrator.deploy import plan
    from migrator.projections import rebuild as rebuilding

    live = plan.standing(job.settings).projections
    names = [name for name, definition in wanted.items() if live.get(name) != definition]
    if not names:
        return Ended("every projection is live already", skipped=True)
    options = rebuilding.Options(
        cut_over=False,
        allow=allowed(job.allow, job.reason).rebuild,
        max_mb_per_s=job.options.max_mb_per_s,
        quarantine=job.options.quarantine,
        accept_diff=job.options.accept_diff,
    )
    report = rebuilding.rebuild(job.settings, names, options, listener=job.told)
    rows = sum(each.rows for each in report.projections)
    events = sum(each.events for each in report.projections)
    return Ended(
        f"{_many(len(names), 'projection')}, {rows:,} rows from {events:,} events",
        {
            "builds": {each.projection: each.build for each in report.projections},
            "rows": {each.projection: each.rows for each in report.projections},
            "events": {each.projection: each.events for each in report.projections},
            "checks": {
                each.projection: [
                    {"check": r.check, "verdict": r.verdict, "found": r.found} for r in each.results
                ]
                for each in report.projections
            },
            "seconds": report.seconds,
        },
    )


def cut_over(job: Job) -> Ended:
    """Make the builds of this deployment live, all at one instant.

    Raises:
        Refused, Busy: as `migrator cut-over`.
    """
    with connect(job.settings, "deploy") as conn:
        built = deployments.steps(conn, job.deployment.deployment)["rebuild"].detail or {}
    builds: dict[str, int] = built.get("builds", {})
    if not builds:
        return Ended("no projection was rebuilt", skipped=True)
    from migrator.projections import cut_over as cutting

    done = cutting.cut_over(job.settings, list(builds.values()), run=job.deployment.run)
    names = ", ".join(f"{name} build {build}" for name, build in builds.items())
    if done.swapped is None:
        return Ended(f"live already: {names}", {"builds": builds})
    stall_ms = round(done.swapped.stall_ms, 1)
    return Ended(
        f"live: {names}; nobody waited longer than {stall_ms:.0f} ms",
        {
            "builds": builds,
            "held_ms": round(done.swapped.held_ms, 1),
            "stall_ms": stall_ms,
            "attempts": done.swapped.attempts,
            "notes": list(done.swapped.notes),
            "unvalidated": [vars(each) for each in done.swapped.unvalidated],
        },
    )


def health(job: Job) -> Ended:
    """Ask for the window that is set whether the application is well."""
    if not job.settings.health.checks:
        return Ended("no [health] checks are set", skipped=True)
    from migrator.deploy import health as asking

    found = asking.watch(job.settings)
    checked = {
        each.check: {"asked": each.asked, "failures": each.failures} for each in found.checked
    }
    return Ended(str(found), checked, unhealthy=bool(found.failing))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


Step = Callable[[Job], Ended]
EXPAND: dict[str, Step] = {
    "rehearsal": rehearsal,
    "lint": lint,
    "verify": verify,
    "checkpoint": checkpoint,
    "up": up,
    "rebuild": rebuild,
    "cut-over": cut_over,
    "health": health,
}
CONTRACT: dict[str, Step] = {
    name: step for name, step in EXPAND.items() if name not in ("rebuild", "cut-over")
}


def of(phase: str) -> dict[str, Step]:
    """The steps of a deployment of this phase, in their order."""
    return EXPAND if phase == "expand" else CONTRACT


def refuse_unknown(phase: str, step: str | None) -> None:
    """Raise UsageError for a name after --until that is no step."""
    if step is not None and step not in of(phase):
        raise UsageError.unknown(f"step of a deployment of phase {phase}", step, of(phase))


def note(job: Job, name: str, outcome: Outcome, ended: Ended) -> None:
    """Keep how a step ended, and tell it."""
    with connect(job.settings, "deploy", autocommit=True) as conn:
        row = deployments.step_ends(
            conn, job.deployment.deployment, name, outcome, ended.said, ended.detail
        )
    logs.logger().info("step ended", step=name, outcome=outcome, said=ended.said)
    job.told(StepEnded(row))
