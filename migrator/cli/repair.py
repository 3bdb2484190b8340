"""`migrator repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.migrations.repair import Repair


@click.command("repair")
@click.argument("revision", metavar="REV")
@click.option("--reason", metavar="TEXT", help="Why the file was edited; it is kept in the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show both hashes; change nothing.")
@pass_app
def command(app: App, revision: str, reason: str | None, yes: bool, dry_run: bool) -> None:
    """Accept a deliberate edit of an applied revision's file, so that verify does.

    It appends an entry to the ledger and changes no other.  What the edit would do is not done to
    the database: a change of the schema is a new revision.
    """
    from migrator.errors import UsageError
    from migrator.migrations import repair

    planned = repair.plan(app.settings, revision)
    if not planned.is_needed or dry_run:
        app.emit(_document(planned, dry_run=dry_run), f"{_text(planned)}\nNothing was changed.")
        return
    app.say(_text(planned))
    if not reason:
        raise UsageError("a repair needs a reason", expected='--reason "why", kept in the ledger')
    app.confirm("Accept the file as it is now?", yes=yes)
    entry = repair.repair(app.settings, planned, reason=reason)
    app.emit(
        {**_document(planned, dry_run=False), "entry": entry, "reason": reason},
        f"accepted in entry {entry}; next: migrator verify",
    )


def _text(planned: Repair) -> str:
    revision = planned.revision
    if not planned.is_needed:
        return f"{revision.path.name} is what the ledger says: {planned.accepted}"
    return (
        f"{revision.path.name} does something else than revision {revision.id} did, which was "
        f"applied {planned.entry.applied_at:%Y-%m-%d %H:%M} UTC by {planned.entry.client}:\n"
        f"  source_hash in the ledger  {planned.accepted or 'unknown'}\n"
        f"  source_hash of the file    {revision.source_hash}\n"
        "Accepting it changes nothing in the schema; verify's drift check tells whether the "
        "edited file still produces it."
    )


def _document(planned: Repair, *, dry_run: bool) -> dict[str, Any]:
    return {
        "revision": planned.revision.id,
        "file": str(planned.revision.path),
        "accepted_hash": planned.accepted,
        "source_hash": planned.revision.source_hash,
        "is_needed": planned.is_needed,
        "dry_run": dry_run,
    }
