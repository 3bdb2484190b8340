"""`migrator new`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.migrations.revision import Phase


@click.command("new")
@click.argument("message")
@click.option(
    "--phase",
    type=click.Choice(["expand", "contract"]),
    default="expand",
    show_default=True,
    help="expand adds, before the roll-out; contract removes, after it.",
)
@click.option("--dry-run", is_flag=True, help="Print both files; write none.")
@pass_app
def command(app: App, message: str, phase: Phase, dry_run: bool) -> None:
    """Start the next revision and its rollback script; MESSAGE says what it changes."""
    from migrator.migrations import scaffold

    drafted = scaffold.draft(app.settings, message, phase=phase)
    files = [
        (drafted.path, drafted.source),
        (drafted.rollback_path, drafted.rollback_script),
    ]
    document = {
        "revision": drafted.id,
        "revises": drafted.revises,
        "phase": phase,
        "files": [str(path) for path, _ in files],
        "dry_run": dry_run,
    }
    if dry_run:
        app.emit(document, "\n".join(f"# {path}\n{text}" for path, text in files).rstrip())
        return
    scaffold.write(drafted)
    app.emit(
        document,
        f"revision {drafted.id}, which revises {drafted.revises or 'nothing: it is the first'}\n"
        f"  {drafted.path}: write upgrade()\n"
        f"  {drafted.rollback_path}: write the SQL that undoes it\n"
        "next: migrator up --dry-run",
    )
