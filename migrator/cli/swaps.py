"""Say what a swap did: how long it was in others' way, and what to know of what it carried over."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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


def applied(swapped: Swapped) -> list[str]:
    """How many events the new tables still had to take in, if there were any."""
    if not swapped.caught_up:
        return []
    return [
        f"  {swapped.caught_up:,} events were applied to them that the tables before them had read"
    ]


def text(swapped: Swapped) -> list[str]:
    """What a cut-over did, from its first line on."""
    archived = [str(m.outgoing.build) for m in swapped.moves if m.outgoing]
    kept = f"; kept for rollback: build {', '.join(archived)}" if archived else ""
    tries = f" in {swapped.attempts} attempts" if swapped.attempts > 1 else ""
    return [f"Live now{tries}; {told(swapped)}{kept}.", *applied(swapped), *notes(swapped)]


def document(swapped: Swapped) -> dict[str, Any]:
    """The same for a program."""
    return {
        "held_ms": round(swapped.held_ms, 1),
        "stall_ms": round(swapped.stall_ms, 1),
        "attempts": swapped.attempts,
        "live": [m.incoming.build for m in swapped.moves],
        "archived": [m.outgoing.build for m in swapped.moves if m.outgoing],
        "caught_up": swapped.caught_up,
        "unvalidated": [asdict(u) for u in swapped.unvalidated],
        "notes": list(swapped.notes),
    }
