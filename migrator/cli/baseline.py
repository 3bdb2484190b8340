"""`migrator baseline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.migrations.baseline import Plan


@click.command("baseline")
@click.argument("revision", metavar="REV")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be declared; change nothing.")
@pass_app
def command(app: App, revision: str, yes: bool, dry_run: bool) -> None:
    """Adopt an existing database: declare REV, and all it stands on, applied.

    No revision runs. Each gets an entry in the ledger, and the version table names REV where it names
    nothing yet.  It is refused where version table, ledger or schema say otherwise.
    """
    from migrator.migrations import baseline

    planned = baseline.plan(app.settings, revision)
    if dry_run or not (planned.entries or planned.stamps):
        ending = "nothing was changed" if dry_run else "nothing to write"
        app.emit(_document(planned, dry_run=dry_run), f"{_text(planned)}\n{ending}")
        return
    app.say(_text(planned))
    app.confirm(f"Is the schema of this database that of {revision}?", yes=yes)
    planned, run = baseline.baseline(app.settings, revision)
    document = _document(planned, dry_run=False) | {"run": str(run)}
    app.emit(document, f"the database is at {revision}; next: migrator up")


def _text(planned: Plan) -> str:
    count = len(planned.entries)
    ids = [each.id for each in planned.entries]
    which = f": {ids[0]}" + (f" to {ids[-1]}" if count > 1 else "") if ids else ""
    declared = f"{count} revision{'' if count == 1 else 's'} declared applied, not run{which}"
    if planned.stamps:
        return f"{declared}\nthe version table, which names nothing yet, names {planned.revision}"
    return f"{declared}\nthe version table names {planned.version} already"


def _document(planned: Plan, *, dry_run: bool) -> dict[str, Any]:
    return {
        "revision": planned.revision,
        "version_before": planned.version,
        "stamped": planned.stamps,
        "entries": [each.id for each in planned.entries],
        "dry_run": dry_run,
    }
