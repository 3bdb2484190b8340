"""Say what the checks of a build found: a table on a terminal, a line each elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from migrator.projections.checks import Result

STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def lines(results: Sequence[Result]) -> list[str]:
    """A line for each check, and what a diff found below it."""
    from migrator.projections.checks import examples

    found = []
    for each in results:
        found.append(f"  {each.verdict}: {each.check} ({each.found})")
        found += [f"    {line}" for line in examples(each)]
    return found


def table(results: Sequence[Result], console: Console) -> list[str]:
    """The same as a table as wide as the terminal."""
    from rich.table import Table
    from rich.text import Text

    from migrator.projections.checks import examples

    shown = Table("verdict", "check", "found", box=None, pad_edge=False, header_style="dim")
    for each in results:
        found = "\n".join([each.found, *examples(each)])
        # Text, not a string: a value of somebody's row is no markup.
        shown.add_row(Text(each.verdict, STYLES[each.verdict]), each.check, Text(found))
    with console.capture() as captured:
        console.print(shown, soft_wrap=False)
    return captured.get().splitlines()
