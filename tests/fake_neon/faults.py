"""What can go wrong between a client and Neon, to be asked for by name or at random."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal[
    "locked",  # 423: another operation runs
    "rate_limited",  # 429 with Retry-After in seconds
    "rate_limited_until",  # 429 with Retry-After as a date
    "unavailable",  # 503, not carried out
    "failed",  # 500, not carried out
    "failed_after",  # 500, and carried out
    "cut",  # the connection is closed before anything is done
    "lost",  # it is carried out, and the connection is closed without an answer
    "slow",  # it is carried out, and the answer comes when nobody waits any more
    "page",  # carried out, but a proxy answers 502 with a page
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
BEFORE = ("locked", "rate_limited", "rate_limited_until", "unavailable", "failed", "cut")


@dataclass
class Faults:
    """`ask` for one, on the next request that fits; `rate` of all requests fail at random."""

    rate: float = 0.0
    dice: random.Random = field(default_factory=random.Random)
    kinds: tuple[Fault, ...] = tuple(f for f in FAULTS if f != "slow")
    met: list[tuple[Fault, str]] = field(default_factory=list)
    _asked: list[tuple[Fault, str, str]] = field(default_factory=list)

    def ask(self, fault: Fault, method: str = ".*", path: str = ".*", *, times: int = 1) -> None:
        self._asked += [(fault, method, path)] * times

    def next(self, method: str, path: str) -> Fault | None:
        for asked in self._asked:
            if re.fullmatch(asked[1], method) and re.search(asked[2], path):
                self._asked.remove(asked)
                self.met.append((asked[0], f"{method} {path}"))
                return asked[0]
        if self.rate and self.dice.random() < self.rate:
            fault = self.dice.choice(self.kinds)
            self.met.append((fault, f"{method} {path}"))
            return fault
        return None
