"""How many different keys a log has, from some of its stretches; in bounded memory. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LIMIT = 1_000_000
Z = 1.96  # 95 %


@dataclass(frozen=True)
class Distinct:
    """A count of keys: `estimate` lies in [low, high] with 95 %, as far as the stretches are like the rest.

    Where low = estimate = high, every key was counted.
    """

    low: int
    estimate: int
    high: int


class DistinctKeys:
    """Counts the keys of stretches.

    Past a million keys it goes on with those whose hash ends in so many zero bits, which is as good
    as a random share: counted this way, the error is about a thousandth.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._mask = 0
        # key -> (partition, in how many stretches)
        self._seen: dict[bytes, tuple[int, int]] = {}
        self._stretches: dict[int, int] = {}
        self._offsets = 0
        self._first_met = 0
        self.split: list[tuple[bytes, int, int]] = []

    def add(self, partition: int, keys: Iterable[bytes], offsets: int) -> None:
        """Take in one stretch: its keys, and how many offsets it covers."""
        different = set(keys)
        self._stretches[partition] = self._stretches.get(partition, 0) + 1
        self._offsets += offsets
        self._first_met += len(different)
        for key in different:
            if hash(key) & self._mask:
                continue
            place, count = self._seen.get(key, (partition, 0))
            if place != partition and len(self.split) < 100:
                self.split.append((key, place, partition))
            self._seen[key] = (place, count + 1)
        while len(self._seen) > self._limit:
            self._mask = self._mask * 2 + 1
            self._seen = {k: v for k, v in self._seen.items() if not hash(k) & self._mask}

    def counted(self) -> Distinct:
        """The count where every offset was taken in."""
        number = len(self._seen) * (self._mask + 1)
        if not self._mask:
            return Distinct(number, number, number)
        off = int(Z * number / math.sqrt(len(self._seen)))
        return Distinct(number - off, number, number + off)

    def estimated(self, offsets: int) -> Distinct:
        """The count in a log of `offsets`, of which the stretches are a part.

        Chao's estimator for incidences (Chao2, bias-corrected, with its log-normal interval): from
        keys met in one stretch and in two it tells how many were met in none. No log has more keys
        than its stretches together, so their mean is the upper bound; it holds alone where no key
        was met twice.
        """
        seen = len(self._seen) * (self._mask + 1)
        bound = max(seen, math.ceil(self._first_met / max(self._offsets, 1) * offsets))
        once = sum(count == 1 for _, count in self._seen.values())
        twice = sum(count == 2 for _, count in self._seen.values())
        # Keys of different partitions never meet: a partition's stretches are the samples.
        m = max(self._stretches.values(), default=0)
        if not twice or m < 2:
            return Distinct(seen, bound, bound) if once else Distinct(seen, seen, seen)
        a = (m - 1) / m
        unseen = a * once * (once - 1) / (2 * (twice + 1))
        if unseen <= 0:
            return Distinct(seen, seen, seen)
        ratio = once / twice
        variance = twice * (a * ratio**2 / 2 + a**2 * ratio**3 + a**2 * ratio**4 / 4)
        spread = math.exp(Z * math.sqrt(math.log(1 + variance / unseen**2)))
        low, guess, high = seen + unseen / spread, seen + unseen, seen + unseen * spread
        return Distinct(*(min(int(x), bound) for x in (low, guess, high)))
