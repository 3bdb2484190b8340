"""`migrator deploy`: the whole flow as one deployment that can be interrupted anywhere."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli import rebuild_projections, up
from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from migrator.deploy.deployment import Deployment, StepRow
    from migrator.deploy.foresee import Foreseen
    from migrator.deploy.pipeline import Outcome
    from migrator.migrations.revision import Phase

NOTHING = "Nothing to deploy: no revision of this phase is pending, and no projection has changed."


class Hours(click.ParamType):  # type: ignore[type-arg]
    """A time in hours or days, as 24h or 2d; gives hours."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(h|d)?", str(value))
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no time such as 24h or 2d", param, ctx)
        return float(found[1]) * (24 if found[2] == "d" else 1)


@click.command("deploy")
@click.option(
    "--phase",
    type=click.Choice(["expand", "contract"]),
    default="expand",
    show_default=True,
    help="contract is a later deployment, when the old release is gone.",
)
@click.option("--until", metavar="STEP", help="Stop after this step; deploy goes on from there.")
@click.option(
    "--allow",
    metavar="NAME",
    multiple=True,
    help="Go on although this forbids it; needs --reason.  May be repeated.",
)
@click.option("--reason", metavar="TEXT", help="Why; it is kept with the deployment.")
@click.option(
    "--skip-drift", is_flag=True, help="Verify without drift, and make no scratch database."
)
@click.option(
    "--kill-blockers",
    is_flag=True,
    help="End the sessions whose long transactions are in the way; needs --reason.",
)
@click.option(
    "--max-mb-per-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Read at most so many megabytes a second from Kafka, over all workers.",
)
@click.option(
    "--quarantine",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Put up to N events that cannot be folded aside.  [default: stop at one]",
)
@click.option(
    "--accept-diff",
    metavar="REASON",
    help="Go live although rows differ from live's; the reason is kept.",
)
@click.option(
    "--require-rehearsal",
    type=Hours(),
    metavar="AGE",
    help="Refuse a plan without a rehearsal that passed within AGE, such as 24h.",
)
@click.option(
    "--abandon",
    type=click.IntRange(min=1),
    metavar="ID",
    help="Give this unfinished deployment up, and deploy nothing; needs --reason.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its SQL; change nothing.")
@pass_app
def command(
    app: App,
    phase: Phase,
    until: str | None,
    allow: tuple[str, ...],
    reason: str | None,
    skip_drift: bool,
    kill_blockers: bool,
    max_mb_per_s: float | None,
    quarantine: int,
    accept_diff: str | None,
    require_rehearsal: float | None,
    abandon: int | None,
    dry_run: bool,
) -> None:
    """Bring database and projections to this checkout, in one deployment.

    Lint, verify, checkpoint, expand revisions, rebuild of the changed projections, one cut-over for
    all of them, health checks.  Not healthy, it is rolled back, and the exit code is 7.

    Interrupted, even by kill -9, the same command goes on where it stopped.
    """
    if abandon is not None:
        _abandon(app, abandon, reason)
        return
    from migrator.deploy import foresee, pipeline
    from migrator.deploy.steps import Options

    options = Options(
        until=until,
        allow=frozenset(allow),
        reason=reason,
        skip_drift=skip_drift,
        kill_blockers=kill_blockers,
        max_mb_per_s=max_mb_per_s,
        quarantine=quarantine,
        accept_diff=rebuild_projections.diff_reason(accept_diff),
        require_rehearsal_h=require_rehearsal,
    )
    if dry_run:
        _show(app, foresee.preview(app.settings, phase=phase, options=options))
        return
    if phase == "expand" and app.settings.projections.executor == "local":
        from migrator.executors import local

        local.warm_up("migrator.projections.replay")
    from migrator.cli.progress import replay_progress

    with replay_progress(as_json=app.json or app.log_format == "json") as listener:
        outcome = pipeline.deploy(
            app.settings, phase=phase, options=options, told=_teller(app, listener)
        )
    app.emit(_document(outcome), _text(outcome))


def _abandon(app: App, number: int, reason: str | None) -> None:
    from migrator.deploy import pipeline

    ended = pipeline.abandon(app.settings, number, reason or "")
    text = f"Deployment {number} is abandoned; what it did stays as it is (migrator history)."
    app.emit({"deployment": _row(ended)}, text)


def _teller(app: App, listener: Callable[[Any], None]) -> Callable[[Any], None]:
    """Print a line for each step, and what `up`, a rebuild and a rollback tell meanwhile."""
    from migrator.cli.filling import FillingLines
    from migrator.deploy.steps import Began, StepBegan, StepEnded
    from migrator.postgres.ledger import Entry
    from migrator.projections.quarantine import Quarantined
    from migrator.projections.rebuild import Step
    from migrator.projections.replay import Progress

    lines = FillingLines(app.say)

    def tell(said: Any) -> None:
        match said:
            case Began(row, resumed):
                app.say(_began(row, resumed=resumed))
            case StepEnded(row):
                app.say(_step(row))
            case Entry():
                app.say(f"undone: {said.subject}")
            case Step() | Progress() | Quarantined():
                listener(said)
            case StepBegan():
                pass
            case _:
                up.say(app, lines, said, [])

    return tell


def _began(row: Deployment, *, resumed: bool) -> str:
    number = f"deployment {row.deployment}"
    if resumed:
        return f"{number} of {row.began_at:%Y-%m-%d %H:%M} UTC goes on at {row.step or 'its start'}"
    revisions, projections = len(row.plan.revisions), len(row.plan.projections)
    return f"{number} begins: revisions: {revisions}, projections: {projections}"


def _step(row: StepRow) -> str:
    took = f" ({row.seconds:.1f} s)" if row.outcome != "skipped" else ""
    return f"{row.outcome:<8} {row.step}: {row.said}{took}"


def _text(outcome: Outcome) -> str:
    row = outcome.deployment
    if row is None:
        return NOTHING
    if row.state == "stopped":
        return f"Deployment {row.deployment} stops after {row.step}, as asked; migrator deploy goes on."
    assert row.ended_at is not None
    took = (row.ended_at - row.began_at).total_seconds()
    return f"Deployment {row.deployment} is done; it took {took:.1f} s."


def _document(outcome: Outcome) -> dict[str, Any]:
    row = outcome.deployment
    return {
        "deployment": _row(row) if row else None,
        "steps": [asdict(step) | {"seconds": step.seconds} for step in outcome.steps],
    }


def _row(row: Deployment) -> dict[str, Any]:
    return asdict(row) | {"run": str(row.run)}


def _show(app: App, seen: Foreseen) -> None:
    from migrator.errors import Refused

    document: dict[str, Any] = {
        "dry_run": True,
        "plan": seen.plan.as_json() | {"hash": seen.plan.hash},
        "goes_on": seen.goes_on.deployment if seen.goes_on else None,
        "steps": list(seen.steps),
        "up": up.plan_document(*seen.up) if seen.up else None,
        "rebuild": None,
    }
    blocks = [_plan_text(seen)]
    if seen.up:
        blocks.append(up.plan_text(*seen.up))
    refused = False
    if seen.rebuild:
        planned, preflight = seen.rebuild
        document["rebuild"] = {
            "plan": [asdict(each) for each in planned],
            "findings": [asdict(found) for found in preflight.findings],
            "estimates": [asdict(each) for each in preflight.estimates],
        }
        blocks += [
            rebuild_projections.preflight_text(preflight),
            rebuild_projections.plan_text(planned),
        ]
        refused = bool(preflight.refused)
    app.emit(document, "\n\n".join(block.rstrip() for block in blocks))
    if refused:
        raise SystemExit(Refused.exit_code)


def _plan_text(seen: Foreseen) -> str:
    plan = seen.plan
    if plan.is_empty and seen.goes_on is None:
        return NOTHING
    lines = [f"Plan {plan.hash[:12]}, phase {plan.phase}: {', '.join(seen.steps)}"]
    if seen.goes_on:
        row = seen.goes_on
        lines.append(f"  deployment {row.deployment}, {row.state} at {row.step}, is unfinished")
    lines += [f"  revision {each.revision} {each.message}".rstrip() for each in plan.revisions]
    lines += [f"  projection {each.projection}: {each.why}" for each in plan.projections]
    return "\n".join(lines)
