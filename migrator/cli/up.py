"""`migrator up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from migrator.cli import waits
from migrator.cli.context import App, pass_app
from migrator.cli.filling import FillingLines

if TYPE_CHECKING:
    from migrator.migrations.plan import Plan
    from migrator.migrations.revision import Phase
    from migrator.migrations.up import Outcome, Preview


@click.command("up")
@click.option(
    "--phase",
    type=click.Choice(["expand", "contract"]),
    help="Only the pending revisions of this phase; stop before the first of the other.",
)
@click.option("--to", metavar="REV", help="Stop after this revision.")
@click.option(
    "--allow",
    metavar="RULE",
    multiple=True,
    help="Apply although this rule forbids it; needs --reason. May be repeated.",
)
@click.option(
    "--kill-blockers",
    is_flag=True,
    help="End the sessions whose long transactions are in the way; needs --reason.",
)
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the ledger.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its SQL; change nothing.")
@pass_app
def command(
    app: App,
    phase: Phase | None,
    to: str | None,
    allow: tuple[str, ...],
    kill_blockers: bool,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Apply the pending revisions, forward only.

    Each revision commits with its ledger entry or leaves nothing; lock waits are bounded and
    retried. After a failure, correct the cause and run the same command again.
    """
    from migrator.migrations import up

    if dry_run:
        plan, previews = up.preview(app.settings, to=to, phase=phase, allow=allow, reason=reason)
        app.emit(plan_document(plan, previews), plan_text(plan, previews))
        return
    lines = FillingLines(app.say)
    warnings: list[str] = []
    outcome = up.up(
        app.settings,
        to=to,
        phase=phase,
        allow=allow,
        kill_blockers=kill_blockers,
        reason=reason,
        progress=lambda step: say(app, lines, step, warnings),
    )
    app.emit(_document(outcome) | {"warnings": warnings}, _text(outcome))


def say(app: App, lines: FillingLines, step: Any, warnings: list[str]) -> None:
    """Print what `up` tells on its way; a warning is kept, too."""
    from migrator.migrations.apply import Done
    from migrator.migrations.pages import Filling
    from migrator.migrations.phase_check import Warned
    from migrator.migrations.pieces import Resumed
    from migrator.migrations.retry import HeldOff, Killed, Retry
    from migrator.migrations.up import Waiting

    match step:
        case Waiting() | Retry() | HeldOff() | Killed():
            for line in waits.lines(step):
                app.say(line)
        case Resumed(revision, statements):
            app.say(f"{revision} goes on behind what an interrupted run has committed:")
            for text in statements:
                app.say(f"  {text}")
        case Warned(text):
            warnings.append(text)
            app.say(f"warning: {text}")
        case Filling():
            lines.heard(step)
        case Done():
            tries = {0: "", 1: ", 1 retry"}.get(step.retries, f", {step.retries} retries")
            message = f": {step.message}" if step.message else ""
            app.say(f"{step.revision} applied in {step.duration_ms} ms{tries}{message}")


def _text(outcome: Outcome) -> str:
    count = len(outcome.applied)
    if count:
        did = f"{count} revision{'' if count == 1 else 's'} applied"
    else:
        did = "nothing applied" if outcome.pending else "nothing pending"
    lines = [f"{did}; the database is at {outcome.version or 'no revision'}"]
    if outcome.stopped_before:
        lines.append(_stopped(outcome.stopped_before))
    elif outcome.pending:
        lines.append(f"still pending: {', '.join(outcome.pending)}")
    if outcome.unknown:
        lines.append(_ahead(outcome.unknown))
    return "\n".join(lines)


def _stopped(revision: Any) -> str:
    return (
        f"stopped before {revision}, of phase {revision.phase}; "
        f"next: migrator up --phase {revision.phase}, when its time has come"
    )


def _ahead(unknown: tuple[str, ...]) -> str:
    return (
        f"the database is ahead of this checkout, which has no file for {', '.join(unknown)}; "
        "that is no error"
    )


def _document(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run": str(outcome.run),
        "applied": [
            asdict(done) | {"ended": [one.as_json() for one in done.ended]}
            for done in outcome.applied
        ],
        "version": outcome.version,
        "pending": list(outcome.pending),
        "unknown": list(outcome.unknown),
        "stopped_before": outcome.stopped_before.id if outcome.stopped_before else None,
    }


def plan_document(plan: Plan, previews: tuple[Preview, ...]) -> dict[str, Any]:
    """The same for a program."""
    return {
        "dry_run": True,
        "version": plan.version,
        "plan": [
            {
                "revision": shown.revision.id,
                "message": shown.revision.message,
                "phase": shown.revision.phase,
                "sql": shown.sql,
                "sql_unknown_because": shown.why_not,
                "notes": list(shown.notes),
            }
            for shown in previews
        ],
        "unknown": list(plan.unknown),
        "stopped_before": plan.stopped_before.id if plan.stopped_before else None,
    }


def plan_text(plan: Plan, previews: tuple[Preview, ...]) -> str:
    """The plan with its SQL, for a person."""
    blocks = [_block(shown) for shown in previews]
    count = len(previews)
    blocks.append(
        f"-- {count} revision{'' if count == 1 else 's'} would be applied; "
        f"the database is at {plan.version or 'no revision'}; nothing was changed"
    )
    if plan.stopped_before:
        blocks.append(f"-- {_stopped(plan.stopped_before)}")
    if plan.unknown:
        blocks.append(f"-- {_ahead(plan.unknown)}")
    return "\n\n".join(blocks)


def _block(shown: Preview) -> str:
    head = f"-- {shown.revision} ({shown.revision.phase})"
    for line in "\n".join(shown.notes).splitlines():
        head += f"\n-- {line}"
    if shown.sql is None:
        return (
            f"{head}\n-- Its SQL depends on what the database answers, so it cannot be shown "
            f"before it runs: {shown.why_not}"
        )
    return f"{head}\n{shown.sql or '-- sends no SQL'}"
