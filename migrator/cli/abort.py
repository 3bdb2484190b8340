"""`migrator abort`: give up a build that is not live, and leave nothing of it behind."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.abort import Aborted


@click.command("abort")
@click.argument("build", type=click.IntRange(min=1))
@click.option("--dry-run", is_flag=True, help="Print what would be dropped and change nothing.")
@pass_app
def command(app: App, build: int, dry_run: bool) -> None:
    """Drop the tables of the unfinished or failed BUILD and mark it aborted.

    A live or an archived build is refused, and so is one that a rebuild is working on.
    """
    from migrator.projections import abort

    if dry_run:
        planned = abort.plan(app.settings, build)
        app.emit({"plan": asdict(planned)}, _text(planned, "would be aborted; nothing was changed"))
        return
    done = abort.abort(app.settings, build)
    app.emit(asdict(done), _text(done, "aborted"))


def _text(each: Aborted, what: str) -> str:
    lines = [f"build {each.build} of {each.projection}, {each.state}: {what}"]
    lines += [f"  {statement};" for statement in each.statements]
    lines += [f"    with table {table}" for table in each.tables]
    if not each.statements:
        lines.append("  it was aborted before: nothing is left of it")
    return "\n".join(lines)
