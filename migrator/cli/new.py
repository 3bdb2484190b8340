"""`migrator new`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.migrations.autogenerate import Drafted
    from migrator.migrations.revision import Phase
    from migrator.migrations.scaffold import Draft


@click.command("new")
@click.argument("message")
@click.option(
    "--phase",
    type=click.Choice(["expand", "contract"]),
    default="expand",
    show_default=True,
    help="expand adds, before the roll-out; contract removes, after it.",
)
@click.option(
    "--autogenerate",
    is_flag=True,
    help="Draft what [migrations] metadata has and the database lacks, with the way back.",
)
@click.option("--dry-run", is_flag=True, help="Print the files; write none.")
@pass_app
def command(app: App, message: str, phase: Phase, autogenerate: bool, dry_run: bool) -> None:
    """Start the next revision and its rollback script; MESSAGE says what it changes."""
    from migrator.migrations import scaffold

    if autogenerate:
        _autogenerate(app, message, phase, dry_run=dry_run)
        return
    drafted = scaffold.draft(app.settings, message, phase=phase)
    document = _document(drafted, phase) | {"dry_run": dry_run}
    if dry_run:
        app.emit(document, _sources([drafted]))
        return
    scaffold.write(drafted)
    app.emit(
        document,
        f"revision {drafted.id}, which revises {drafted.revises or 'nothing: it is the first'}\n"
        f"  {drafted.path}: write upgrade()\n"
        f"  {drafted.rollback_path}: write the SQL that undoes it\n"
        "next: migrator up --dry-run",
    )


def _autogenerate(app: App, message: str, phase: Phase, *, dry_run: bool) -> None:
    from migrator.migrations import autogenerate, scaffold

    at_terminal = sys.stdin.isatty() and not app.json
    drafted = autogenerate.draft(
        app.settings,
        message,
        phase=phase,
        ask=(lambda rename: click.confirm(str(rename))) if at_terminal else None,
    )
    document = {
        "revisions": [_document(draft, draft.phase) for draft in drafted.drafts],
        "held": list(drafted.held),
        "open": list(drafted.open),
        "dry_run": dry_run,
    }
    if not dry_run:
        scaffold.write(*drafted.drafts)
    shown = _sources(drafted.drafts) if dry_run else _written(drafted)
    app.emit(document, "\n".join(filter(None, [shown, *_remarks(drafted)])))


def _written(drafted: Drafted) -> str:
    lines = [
        f"revision {draft.id} ({draft.phase}), which revises "
        f"{draft.revises or 'nothing: it is the first'}\n  {draft.path}\n  {draft.rollback_path}"
        for draft in drafted.drafts
    ]
    return "\n".join([*lines, "next: read them, then migrator up --dry-run"]) if lines else ""


def _remarks(drafted: Drafted) -> list[str]:
    """What was not drafted as something that runs, and why."""
    remarks = []
    if not drafted.drafts:
        remarks.append(
            "nothing to add: what is left removes or restricts"
            if drafted.held
            else "nothing to do: the database has what the metadata declares"
        )
    if drafted.held:
        remarks.append(
            "held back for a contract revision, since a running release may use it:"
            + "".join(f"\n  {line}" for line in drafted.held)
            + "\nnext: when no release uses it any more, migrator new --autogenerate "
            "--phase contract MESSAGE"
        )
    if drafted.open:
        remarks.append(
            "not decided, and drafted as comments:"
            + "".join(f"\n  {line}" for line in drafted.open)
            + "\nnext: choose in the file; at a terminal, migrator asks"
        )
    return remarks


def _document(draft: Draft, phase: str) -> dict[str, Any]:
    return {
        "revision": draft.id,
        "revises": draft.revises,
        "phase": phase,
        "files": [str(draft.path), str(draft.rollback_path)],
    }


def _sources(drafts: Sequence[Draft]) -> str:
    files = [
        file
        for draft in drafts
        for file in ((draft.path, draft.source), (draft.rollback_path, draft.rollback_script))
    ]
    return "\n".join(f"# {path}\n{text}" for path, text in files).rstrip()
