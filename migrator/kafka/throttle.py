"""Keep a reader below a rate of bytes a second."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 1.0


class Throttle:
    """A token bucket: over any stretch of time, at most `bytes_per_s` and one second's burst."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def took(self, size: int) -> None:
        """Wait until `size` more bytes are within the rate."""
        now = self._clock()
        # What was not used up for longer than the burst is lost.
        self._free_at = max(self._free_at, now - BURST_S) + size / self._rate
        if self._free_at > now:
            self._sleep(self._free_at - now)
