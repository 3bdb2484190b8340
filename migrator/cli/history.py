"""`migrator history`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.postgres.ledger import Entry

COLUMNS = ("entry", "when (UTC)", "what", "who", "took", "why")


@click.command("history")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the N newest entries.")
@pass_app
def command(app: App, limit: int | None) -> None:
    """Show what was done to this database, newest first: revisions, cut-overs, rollbacks.

    Reads the database alone, so it works from a checkout of any age.
    """
    from migrator.postgres import ledger
    from migrator.postgres.connect import connect

    with connect(app.settings, "history", autocommit=True) as conn:
        entries = ledger.entries(conn)
    newest = entries[::-1][:limit]
    if app.json or not newest:
        app.emit(
            {"entries": [asdict(entry) for entry in newest], "total": len(entries)},
            "the ledger is empty: migrator has done nothing to this database yet",
        )
        return
    _show(app, [_row(entry, entries) for entry in newest])
    if len(newest) < len(entries):
        app.say(f"{len(entries) - len(newest)} older entries; --limit {len(entries)} shows all")


def _row(entry: Entry, entries: list[Entry]) -> tuple[str, ...]:
    undone_by = next((later.entry for later in entries if later.undoes == entry.entry), None)
    why = entry.reason or entry.message or ""
    if entry.allowed:
        why = f"{entry.message or ''} (allowed {', '.join(entry.allowed)}: {entry.reason})".strip()
    if undone_by is not None:
        why = f"{why} (undone by {undone_by})".strip()
    return (
        str(entry.entry),
        f"{entry.applied_at:%Y-%m-%d %H:%M:%S}",
        _what(entry),
        entry.client,
        _took(entry.duration_ms),
        why,
    )


def _what(entry: Entry) -> str:
    builds = ""
    if entry.build is not None:
        builds = f" to build {entry.build}"
    if entry.replaced_build is not None:
        builds += f" from {entry.replaced_build}"
    return f"{entry.act} {entry.subject}{builds}"


def _took(duration_ms: int) -> str:
    if duration_ms < 1000:
        return f"{duration_ms} ms"
    seconds = duration_ms / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _show(app: App, rows: list[tuple[str, ...]]) -> None:
    if app.console.is_terminal:
        from rich.table import Table

        table = Table(*COLUMNS, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        app.console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        app.say("  ".join(padded).rstrip())
