"""`migrator checkpoint`: the database as it is now, kept as a branch, and the way back to it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app
from migrator.cli.spans import Span

if TYPE_CHECKING:
    from migrator.deploy.checkpoint import Checkpoint, Plan


@click.group("checkpoint")
def command() -> None:
    """Take the database as it is, and go back to it.

    On Neon a checkpoint is a branch without a compute; on a plain PostgreSQL it is a copy of the
    database, which needs that nobody is connected.
    """


@command.command()
@click.option("--name", metavar="NAME", help="Its name.  [default: the time and the revision]")
@click.option(
    "--ttl",
    type=Span(),
    default="7d",
    metavar="SPAN",
    help="How long to keep it, as 12h or 7d; Neon takes up to 30d.  [default: 7d]",
)
@click.option("--no-expiry", is_flag=True, help="Keep it until it is deleted.")
@click.option("--dry-run", is_flag=True, help="Say what would be made and change nothing.")
@pass_app
def create(app: App, name: str | None, ttl: timedelta, no_expiry: bool, dry_run: bool) -> None:
    """Take a checkpoint, and wait until it can be gone back to.

    What is in it is written in the ledger: the last entry, and how far each build has read.
    """
    from migrator.deploy import checkpoint
    from migrator.neon import branches

    if dry_run:
        name = branches.checked(name) if name else checkpoint.default_name(app.settings)
        kind = "a Neon branch without a compute" if app.settings.neon.project_id else "a copy"
        app.emit({"dry_run": True, "name": name}, f"{name} would be made, {kind}")
        return
    made = checkpoint.create(app.settings, name=name, ttl=None if no_expiry else ttl)
    lines = [f"checkpoint {_line(made)}"]
    lines.append(f"  the way back: migrator checkpoint restore {made.name}")
    app.emit({"checkpoint": _document(made)}, "\n".join(lines))


@command.command("list")
@pass_app
def list_(app: App) -> None:
    """List the checkpoints, oldest first.

    It changes nothing and waits for no lock.
    """
    from migrator.deploy import checkpoint

    found = checkpoint.every(app.settings)
    text = "\n".join(_line(each) for each in found) or "There is no checkpoint."
    app.emit({"checkpoints": [_document(each) for each in found]}, text)


@command.command()
@click.argument("name")
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be lost and reached, and stop.")
@pass_app
def restore(app: App, name: str, reason: str | None, yes: bool, dry_run: bool) -> None:
    """Make the database what it was when checkpoint NAME was taken.

    All its sessions are cut.  What was there before is kept under another name.  It shows first what
    is lost and reached, and asks.  To undo less, see `migrator rollback`.
    """
    from migrator.deploy import checkpoint
    from migrator.errors import UsageError

    planned = checkpoint.plan(app.settings, name)
    text = "\n".join(_lost(planned))
    if dry_run:
        app.emit(_planned(planned), f"{text}\n\nNothing was changed.")
        return
    app.say(text)
    if not reason:
        raise UsageError(
            "a restore needs a reason",
            expected='--reason "why", which the ledger keeps',
            next_step=f'migrator checkpoint restore {name} --reason "why"',
        )
    app.confirm(f"Go back to {name}?", yes=yes)
    done = checkpoint.restore(app.settings, planned, reason=reason)
    revision = done.at.revision or "no revision"
    lines = [
        f"The database is what it was at {name}: {revision}, ledger entry {done.at.entry or 0}.",
        f"What was there before is kept as {done.kept_as}: delete it when nobody needs it.",
    ]
    app.emit(
        {**_planned(planned), "restored": True, "reason": reason, "kept_as": done.kept_as},
        "\n".join(lines),
    )


@command.command()
@click.argument("names", nargs=-1)
@click.option("--expired", is_flag=True, help="Also every one whose time is up.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted and change nothing.")
@pass_app
def delete(app: App, names: tuple[str, ...], expired: bool, dry_run: bool) -> None:
    """Delete checkpoints by NAMES, or those whose time is up.

    Neon deletes expired ones by itself; on a plain PostgreSQL nobody else does.
    """
    from migrator.deploy import checkpoint
    from migrator.errors import UsageError

    if not names and not expired:
        raise UsageError("nothing is named", expected="names of checkpoints, or --expired")
    if dry_run:
        found = checkpoint.to_delete(checkpoint.every(app.settings), names, expired=expired)
        chosen = [each.name for each in found]
    else:
        chosen = checkpoint.delete(app.settings, names, expired=expired)
    did = "would be deleted" if dry_run else "deleted"
    text = f"{did}: {', '.join(chosen)}" if chosen else "Nothing is to be deleted."
    app.emit({"dry_run": dry_run, "deleted": chosen}, text)


def _line(each: Checkpoint) -> str:
    row, branch = each.row, each.branch
    taken = row.taken_at if row else branch.created_at if branch else None
    ends = branch.expires_at if branch else None
    revision = (row.revision if row else None) or "no revision"
    said = [
        f"{each.name}  {taken:%Y-%m-%d %H:%M} UTC" if taken else each.name,
        revision if row else "",
        branch.shown if branch else "",
        each.state,
        f"until {ends:%Y-%m-%d %H:%M} UTC" if ends else "",
        f"restored, before that: {row.kept_as}" if row and row.kept_as else "",
    ]
    return "  ".join(part for part in said if part)


def _document(each: Checkpoint) -> dict[str, Any]:
    return {
        "name": each.name,
        "state": each.state,
        "recorded": asdict(each.row) if each.row else None,
        "branch": asdict(each.branch) if each.branch else None,
    }


def _planned(planned: Plan) -> dict[str, Any]:
    return {
        "checkpoint": _document(planned.checkpoint),
        "reach": asdict(planned.reach),
        "lost": asdict(planned.since),
        "keep_as": planned.keep_as,
        "already_restored": planned.unnoted,
    }


def _lost(planned: Plan) -> list[str]:
    reach, since, name = planned.reach, planned.since, planned.checkpoint.name
    if planned.unnoted:
        return [
            f"{reach.branch} was taken back to {name} already, by a run that was interrupted.",
            f"What was there is kept as {planned.keep_as}.",
            "What is left is to read it back and to note it; nothing more is lost.",
        ]
    lines = [f"{reach.branch} would become what it was at {name}. Lost with that:"]
    lines += [
        f"  {e.act} of {e.subject}, {e.applied_at:%Y-%m-%d %H:%M} UTC, by {e.client}"
        for e in since.entries
    ]
    lines += [f"  build {b.build} of {b.projection}, {b.state}" for b in since.builds]
    lines += [
        f"  {events:,} events that {build} has read since: they are read again from Kafka"
        for build, events in sorted(since.events.items())
    ]
    if not (since.entries or since.builds or since.events):
        lines.append("  no revision, no build and no position")
    lines.append(
        f"  every row written since by anybody, in {since.wal_bytes:,} bytes of WAL; "
        "the ledger does not know them"
    )
    lines.append("It reaches:")
    lines.append(f"  databases: {', '.join(reach.databases)}")
    if reach.sessions:
        lines.append(f"  {reach.sessions} sessions, which are cut")
    if reach.children:
        lines.append(
            f"  branches below it, which move below {planned.keep_as}: {', '.join(reach.children)}"
        )
    if reach.slots:
        lines.append(
            f"  replication slots, which do not come along: {', '.join(reach.slots)}; what reads "
            "from them must take a new snapshot"
        )
    lines.append(f"What is there now is kept as {planned.keep_as}.")
    return lines
