"""How far a replay is: partition by partition, with rate and time left. Pure.

A rate is that of the last few seconds, so that it falls to nothing where nothing comes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from migrator.projections.replay import Progress

WINDOW_S = 10.0
SAMPLE_S = 0.5

Place = tuple[str, int]


@dataclass(frozen=True)
class Reach:
    """How far one partition is. `read` and `total` are events of this run, by their offsets.

    `events_per_s` is None before there are two moments to compare, `seconds_left` where there is no
    rate, `news_age_s` where nothing has been heard of the partition yet.
    """

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    read: int
    total: int
    events_per_s: float | None
    seconds_left: float | None
    news_age_s: float | None
    is_committed: bool


@dataclass
class _Track:
    start: int
    last: Progress
    heard_at: float | None = None
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, progress: Progress, now: float) -> None:
        if progress.next_offset < self.last.next_offset:
            self.samples.clear()  # it is read again
        self.last, self.heard_at = progress, now
        if not self.samples or now - self.samples[-1][0] >= SAMPLE_S:
            self.samples.append((now, progress.next_offset))

    def rate(self, now: float) -> float | None:
        if self.last.committed or self.heard_at is None:
            return None
        while self.samples and now - self.samples[0][0] > WINDOW_S:
            self.samples.popleft()
        if not self.samples:
            return 0.0
        since, offset = self.samples[0]
        return (self.last.next_offset - offset) / (now - since) if now > since else None


class Tracker:
    """Hears every Progress of a replay; the first of a partition says where it begins."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tracks: dict[Place, _Track] = {}

    def add(self, progress: Progress) -> None:
        place = progress.topic, progress.partition
        track = self._tracks.get(place)
        if track is None:
            track = _Track(progress.next_offset - progress.events, progress)
            self._tracks[place] = track
        if progress.events or progress.committed:
            track.add(progress, self._clock())

    def reaches(self) -> list[Reach]:
        """Every partition that was heard of, by topic and number."""
        now = self._clock()
        return [_reach(place, track, now) for place, track in sorted(self._tracks.items())]

    def whole(self) -> Reach:
        """All of them together."""
        each = self.reaches()
        rates = [r.events_per_s for r in each if r.events_per_s is not None]
        ages = [r.news_age_s for r in each if r.news_age_s is not None]
        rate = sum(rates) if rates else None
        read, total = sum(r.read for r in each), sum(r.total for r in each)
        return Reach(
            topic=each[0].topic if each else "",
            partition=-1,
            next_offset=sum(r.next_offset for r in each),
            end_offset=sum(r.end_offset for r in each),
            read=read,
            total=total,
            events_per_s=rate,
            seconds_left=_left(total - read, rate),
            news_age_s=min(ages, default=None),
            is_committed=all(r.is_committed for r in each),
        )


def _reach(place: Place, track: _Track, now: float) -> Reach:
    last, rate = track.last, track.rate(now)
    return Reach(
        topic=place[0],
        partition=place[1],
        next_offset=last.next_offset,
        end_offset=last.end_offset,
        read=last.next_offset - track.start,
        total=last.end_offset - track.start,
        events_per_s=rate,
        seconds_left=_left(last.end_offset - last.next_offset, rate),
        news_age_s=None if track.heard_at is None else now - track.heard_at,
        is_committed=last.committed,
    )


def _left(events: int, rate: float | None) -> float | None:
    if events <= 0:
        return 0.0
    return events / rate if rate else None
