"""Say what a swap did: how long it was in others' way, and what to know of what it carried over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrator.projections.swap import Swapped


def told(swapped: Swapped) -> str:
    """How long the swap was in others' way, as a part of a sentence."""
    return (
        f"the tables were locked for {swapped.held_ms:.0f} ms, and nobody waited for the swap longer "
        f"than {swapped.stall_ms:.0f} ms"
    )


def notes(swapped: Swapped) -> list[str]:
    """What was added by hand, and which foreign keys some old rows break, a line or two each."""
    return [f"  {note}" for note in swapped.notes] + [
        f"  not valid: {failed.cause}\n    new rows are held to it; correct the old ones, then run "
        f"{failed.statement}"
        for failed in swapped.unvalidated
    ]
