"""`migrator cut-over`: make verified builds live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from migrator.cli import swaps
from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.cut_over import CutOver


@click.command("cut-over")
@click.argument("builds", nargs=-1, required=True, type=click.IntRange(min=1), metavar="BUILD...")
@click.option("--dry-run", is_flag=True, help="Print the swap's SQL and change nothing.")
@pass_app
def command(app: App, builds: tuple[int, ...], dry_run: bool) -> None:
    """Make each verified BUILD live, all of them at one instant.

    It is the last step of `rebuild-projections --no-cut-over`.  A build that is live already stays
    so; what was live is kept for `migrator rollback`.
    """
    from migrator.projections import cut_over

    if dry_run:
        statements = cut_over.plan(app.settings, builds)
        lines = [f"{statement};" for statement in statements] or ["Every build is live already."]
        app.emit({"plan": statements}, "\n".join([*lines, "Nothing was changed."]))
        return
    done = cut_over.cut_over(app.settings, builds)
    app.emit(_document(done), _text(done))


def _document(done: CutOver) -> dict[str, Any]:
    return {
        "run": str(done.run),
        "builds": [{"build": each.build, "projection": each.projection} for each in done.builds],
        "cut_over": swaps.document(done.swapped) if done.swapped else None,
    }


def _text(done: CutOver) -> str:
    if done.swapped is None:
        return "Every build is live already; nothing was changed."
    names = [f"{m.incoming.projection} build {m.incoming.build}" for m in done.swapped.moves]
    return "\n".join([f"{', '.join(names)}.", *swaps.text(done.swapped)])
