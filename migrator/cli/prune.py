"""`migrator prune`: drop archived builds that no rollback needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.prune import Archived


@click.command("prune")
@click.option(
    "--projection", "projections", multiple=True, metavar="NAME", help="Only builds of this one."
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Keep the N newest archived builds of each projection.",
)
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    default=0,
    metavar="DAYS",
    help="Keep what was archived less than so many days ago.",
)
@click.option(
    "--give-up-rollback",
    is_flag=True,
    help="Drop also what a rollback would go back to; nobody can go back then.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be dropped and change nothing.")
@pass_app
def command(
    app: App,
    projections: tuple[str, ...],
    keep: int,
    days: float,
    give_up_rollback: bool,
    dry_run: bool,
) -> None:
    """Drop archived builds, and give their disk space back.

    The build that `migrator rollback` of a projection goes back to is dropped with
    --give-up-rollback alone.
    """
    from migrator.projections import prune

    act = prune.plan if dry_run else prune.prune
    found = act(
        app.settings,
        keep=keep,
        days=days,
        projections=projections,
        give_up_rollback=give_up_rollback,
    )
    app.emit(
        {"builds": [asdict(each) for each in found], "dry_run": dry_run}, _text(found, dry_run)
    )


def _text(found: list[Archived], dry_run: bool) -> str:
    from migrator.projections.preflight import size_of

    dropped = [each for each in found if each.kept is None]
    did = "would be dropped" if dry_run else "dropped"
    lines = [
        f"build {each.build} of {each.projection}, {size_of(each.bytes)}, archived "
        f"{each.archived_at:%Y-%m-%d}: " + (f"kept, {each.kept}" if each.kept else did)
        for each in found
    ]
    total = size_of(sum(each.bytes for each in dropped))
    last = f"{len(dropped)} {'build' if len(dropped) == 1 else 'builds'} {did}, {total}."
    return "\n".join([*lines, last if dropped else "Nothing to drop."])
