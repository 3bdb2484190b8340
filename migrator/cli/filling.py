"""Show a backfill as it goes: a line every few seconds, and one whenever it pauses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrator.migrations.pages import Filling

EVERY_S = 5.0


@dataclass
class FillingLines:
    """Say a backfill's first page, then one in a few seconds, and every pause."""

    say: Callable[[str], None]
    next_line: float = 0.0

    def heard(self, filling: Filling) -> None:
        now = time.monotonic()
        if filling.paused is None and now < self.next_line:
            return
        self.next_line = now + EVERY_S
        self.say(line(filling))


def line(filling: Filling) -> str:
    """How far it is, in one line."""
    if filling.paused is not None:
        return f"{filling.name} pauses: {filling.paused}"
    about = "" if filling.rows_estimated is None else f" of about {filling.rows_estimated:,}"
    left = "" if filling.seconds_left is None else f", {filling.seconds_left:,.0f} s left"
    again = "" if filling.number == 1 else f", pass {filling.number}"
    return (
        f"{filling.name} fills {filling.table}: {filling.rows_done:,} rows set, "
        f"{filling.rows_read:,}{about} read, {filling.rows_per_s:,.0f} rows/s{left}{again}"
    )
