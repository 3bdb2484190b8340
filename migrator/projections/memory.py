"""Keep a worker's memory within its share of the budget.

How many rows fit is not reckoned, since that hangs on what they hold, but learnt: when the process
has grown to its share, the rows that it holds then are the most it may hold.
"""

from __future__ import annotations

import resource
import sys

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
SHRINK = 0.9
SLACK = 1.02


def peak_bytes() -> int:
    """The most memory that this process has had in use so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


class Memory:
    """Says when a worker must spill.

    Of `limit_bytes`, `reading_bytes` may still be taken by records that are read ahead: while rows are
    folded there may be none, and while they are spilled they come.
    """

    def __init__(self, limit_bytes: int, reading_bytes: int = 0) -> None:
        self._limit = limit_bytes - reading_bytes
        self._after = limit_bytes
        self._most_rows: int | None = None

    def is_full(self, rows: int) -> bool:
        """Whether `rows` rows, which are in memory now, are as many as may be."""
        peak = peak_bytes()
        if peak > self._limit and rows:
            self._limit = max(self._after, int(peak * SLACK))
            most = rows if self._most_rows is None else self._most_rows
            # Not by few rows alone: what grew then was something else, and they would be fewer for good.
            self._most_rows = int(max(min(rows, most), most // 2) * SHRINK)
        return self._most_rows is not None and rows > self._most_rows
