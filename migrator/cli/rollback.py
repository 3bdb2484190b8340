"""`migrator rollback`: undo the last cut-over or the last revision."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migrator.cli import swaps, waits
from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.deploy.rollback import Plan, RolledBack, Step
    from migrator.postgres.ledger import Entry


@click.command("rollback")
@click.option(
    "--projection",
    "projections",
    multiple=True,
    metavar="NAME",
    help="Swap this projection back to the build that was live before; may be repeated.",
)
@click.option(
    "--instant",
    is_flag=True,
    help="Go back at once; what the archived build lacks is applied afterwards.",
)
@click.option(
    "--deployment",
    type=click.IntRange(min=1),
    metavar="ID",
    help="Undo all that this deployment did; projections first, then revisions, newest first.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Undo a deployment although its rollback scripts lose data.",
)
@click.option("--to", metavar="REV", help="Undo revisions, newest first, until REV is the newest.")
@click.option(
    "--export",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Undo nothing; write scripts to DIR that undo revisions and cut-overs by psql alone.",
)
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be undone, with its SQL, and stop.")
@pass_app
def command(
    app: App,
    projections: tuple[str, ...],
    instant: bool,
    deployment: int | None,
    accept_loss: bool,
    to: str | None,
    folder: Path | None,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Undo the last thing that was done: a deployment, a cut-over, or a revision.

    A deployment is undone as a whole: its projections swap back, then its revisions are undone.
    A cut-over is undone by making the build live again that it had archived, in milliseconds; all
    projections that were cut over together go back together.  Before that, the archived build is
    brought up to what the live one has read, so that readers miss no event.  A revision is undone by its rollback
    script, as the database has kept it: no checkout of that release is needed.

    It shows what it will do and asks first.
    """
    from migrator.errors import UsageError

    if folder is not None:
        if projections or to or reason or deployment:
            raise UsageError(
                "--export stands with --projection, --deployment, --to or --reason",
                expected="--export DIR alone: it writes the scripts of all revisions and projections",
            )
        _export(app, folder, dry_run=dry_run)
        return
    from migrator.cli import undo_deployment
    from migrator.deploy import rollback, undo

    if deployment is not None and (projections or to):
        raise UsageError("--deployment is given with --projection or --to", expected="one of them")
    if deployment is None and not projections and to is None:
        last = undo.newest(app.settings)
        deployment = last.deployment if last else None
    if deployment is not None:
        undo_deployment.run(
            app,
            deployment,
            accept_loss=accept_loss,
            instant=instant,
            reason=reason,
            yes=yes,
            dry_run=dry_run,
        )
        return
    if accept_loss:
        raise UsageError("--accept-loss is for a deployment", expected="--deployment ID beside it")
    planned = rollback.plan(app.settings, projections=projections, to=to)
    if dry_run:
        text = "\n".join(
            [*_lines(planned, instant=instant), "", *planned.statements, "", "Nothing was changed."]
        )
        app.emit({"plan": asdict(planned)}, text)
        return
    for line in _lines(planned, instant=instant):
        app.say(line)
    if not instant:
        rollback.refuse_unknown(planned)
    reason = asked_reason(app, reason)
    app.confirm("Undo this?", yes=yes)
    done = rollback.rollback(
        app.settings, planned, reason=reason, instant=instant, progress=lambda step: say(app, step)
    )
    document = {
        **asdict(planned),
        "run": str(done.run),
        "reason": reason,
        "caught_up": done.swapped.caught_up if done.swapped else 0,
    }
    app.emit(document, _done(done))


def say(app: App, step: Step) -> None:
    """Print what is undone, and whom that waits for."""
    from migrator.postgres.ledger import Entry

    if isinstance(step, Entry):
        app.say(f"undone: {named(step)}")
        return
    for line in waits.lines(step):
        app.say(line)


def _export(app: App, folder: Path, *, dry_run: bool) -> None:
    from migrator.deploy import export

    found = export.plan(app.settings)
    if not dry_run:
        export.write(found, folder)
    document = {
        "folder": str(folder),
        "scripts": [{**asdict(script), "order": n} for n, script in enumerate(found.scripts, 1)],
        "ends": found.ends,
        "swap_backs": [asdict(script) for script in found.swap_backs],
        "without": list(found.without),
        "dry_run": dry_run,
    }
    lines = [
        f"{script.file} undoes {script.revision}, to {', '.join(script.leaves) or 'no revision'}"
        for script in found.scripts
    ]
    if found.scripts:
        lines.append(f"after the last: {found.ends}")
    lines += [
        f"{each.file} swaps {each.projection} back from build {each.outgoing} to {each.incoming}"
        + (f", which lacks the {each.behind:,} newest events" if each.behind else "")
        for each in found.swap_backs
    ]
    lines += [f"no script: {why}" for why in found.without]
    did = "would be written" if dry_run else "written"
    count = len(found.files)
    lines.append(f"{count} script{'' if count == 1 else 's'} and {export.INDEX} {did} to {folder}")
    app.emit(document, "\n".join(lines))


def asked_reason(app: App, reason: str | None) -> str:
    """The reason that was given, or that a person at the terminal gives now."""
    import sys

    from migrator.errors import UsageError

    if reason:
        return reason
    if sys.stdin.isatty():
        answer: str = click.prompt("Why? (kept in the ledger)", err=app.json)
        return answer
    raise UsageError(
        "nobody is at a terminal to ask for a reason and a yes",
        expected='--reason "why", kept in the ledger, and --yes',
    )


def _lines(planned: Plan, *, instant: bool) -> list[str]:
    lines = ["This will be undone:"]
    for entry in planned.entries:
        lines.append(f"  {named(entry)}, {entry.applied_at:%Y-%m-%d %H:%M} UTC, by {entry.client}")
        behind = planned.behind.get(entry.subject, 0)
        if behind:
            known = entry.subject not in planned.unknown
            lines.append(
                f"    build {entry.replaced_build} lacks the {behind:,} newest events; "
                + when(known=known, instant=instant)
            )
    return lines


def when(*, known: bool, instant: bool) -> str:
    """When the events that an archived build lacks are applied to it, and by whom."""
    if known:
        return "they are applied afterwards" if instant else "they are applied first"
    return "its definition is not in this checkout: its own release's migrator follow applies them"


def named(entry: Entry) -> str:
    """What an entry did, for a person."""
    if entry.act == "cut-over":
        return f"the cut-over of {entry.subject} from build {entry.replaced_build} to {entry.build}"
    return f"revision {entry.subject}, {entry.message or 'without a message'}"


def _done(done: RolledBack) -> str:
    if done.swapped is None:
        return f"Undone: {', '.join(entry.subject for entry in done.undone)}."
    live = ", ".join(
        f"{m.incoming.projection} build {m.incoming.build}" for m in done.swapped.moves
    )
    said = f"Live again: {live}; {swaps.told(done.swapped)}."
    return "\n".join([said, *swaps.applied(done.swapped), *swaps.notes(done.swapped)])
