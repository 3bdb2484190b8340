"""What a projector shows of itself: metrics for Prometheus, readiness, and lines for who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from migrator.kafka.group import Place

Phase = Literal["starting", "waiting", "following", "failing"]
Listener = Callable[[dict[str, Any]], None]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# A turn takes less, unless the process hangs.
ALIVE_S = 60.0
PROGRESS_S = 5.0


class Metrics:
    """The metrics of all projectors of a process; docs/follow.md has their names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "migrator_follow"}
        by = ("projection",)
        self.events = Counter("events", "Events whose position is committed", by, **own)
        self.lag = Gauge("lag_events", "Offsets to the end", (*by, "topic", "partition"), **own)
        self.seconds = Histogram(
            "batch_seconds", "A batch's transaction", by, buckets=SECONDS, **own
        )
        self.quarantined = Gauge(
            "quarantined_events", "Events that could not be folded, not released", by, **own
        )
        self.held_back = Gauge(
            "held_back_events", "Events that wait behind one of their key", by, **own
        )
        self.rebalances = Counter("rebalances", "How often partitions were given to us", by, **own)
        self.failures = Counter("failures", "Batches that were given up and read again", by, **own)
        self.build = Gauge("build", "The live build that is followed; 0: none is", by, **own)


class Vitals:
    """One projector's; written by its thread, read by others."""

    def __init__(
        self, projection: str, metrics: Metrics, ready_lag: int, tell: Listener = lambda _said: None
    ) -> None:
        self.projection = projection
        self.phase: Phase = "starting"
        self.why = ""
        self.build: int | None = None
        self.events = 0
        self._lag: dict[Place, int] | None = None
        self._alive_at = self._told_at = time.monotonic()
        self._ready_lag = ready_lag
        self._metrics = metrics
        self._listener = tell
        for gauge in (metrics.quarantined, metrics.held_back, metrics.build):
            gauge.labels(projection).set(0)
        for counter in (metrics.events, metrics.rebalances, metrics.failures):
            counter.labels(projection)

    @property
    def lag(self) -> int | None:
        """Events that are still to come of our partitions, as far as was heard; None: not yet known."""
        return None if self._lag is None else sum(self._lag.values())

    @property
    def is_alive(self) -> bool:
        return time.monotonic() - self._alive_at < ALIVE_S

    @property
    def is_ready(self) -> bool:
        """Whether readers of the live table lack little, or our build is not live yet."""
        if self.phase == "waiting":
            return True
        return self.phase == "following" and self.lag is not None and self.lag <= self._ready_lag

    def as_json(self) -> dict[str, Any]:
        return {
            "projection": self.projection,
            "phase": self.phase,
            "build": self.build,
            "lag_events": self.lag,
            "events": self.events,
            "why": self.why,
        }

    def tell(self, event: str, **fields: Any) -> None:
        self._listener({"event": event, "projection": self.projection, **fields})

    def waits(self, why: str) -> None:
        if (self.phase, self.why) != ("waiting", why):
            self.tell("waiting", why=why)
        self._enter("waiting", why)
        self._set_build(None)

    def fails(self, why: str) -> None:
        self._metrics.failures.labels(self.projection).inc()
        self.tell("failing", why=why)
        self._enter("failing", why)

    def follows(self, build: int, places: Collection[Place], *, is_new: bool) -> None:
        """We read these partitions from now on; `is_new`: the group has given them to us."""
        self._set_build(build)
        self._enter("following")
        self._metrics.rebalances.labels(self.projection).inc(is_new)
        for topic, partition in (self._lag or {}).keys() - set(places):
            self._metrics.lag.remove(self.projection, topic, str(partition))
        self._lag = {p: n for p, n in self._lag.items() if p in places} if self._lag else None
        partitions = [f"{topic}/{partition}" for topic, partition in sorted(places)]
        self.tell("following", build=build, partitions=partitions)

    def committed(self, events: int, seconds: float) -> None:
        self.events += events
        self._metrics.events.labels(self.projection).inc(events)
        self._metrics.seconds.labels(self.projection).observe(seconds)
        self._enter("following")

    def stands(self, lag: Mapping[Place, int | None], quarantined: int, held_back: int) -> None:
        self._enter("following")
        known = {place: events for place, events in lag.items() if events is not None}
        self._lag = known if len(known) == len(lag) else None
        for (topic, partition), events in known.items():
            self._metrics.lag.labels(self.projection, topic, str(partition)).set(events)
        self._metrics.quarantined.labels(self.projection).set(quarantined)
        self._metrics.held_back.labels(self.projection).set(held_back)
        if time.monotonic() - self._told_at < PROGRESS_S:
            return
        self._told_at = time.monotonic()
        self.tell(
            "progress",
            build=self.build,
            events=self.events,
            lag_events=self.lag,
            quarantined=quarantined,
            held_back=held_back,
        )

    def _enter(self, phase: Phase, why: str = "") -> None:
        self.phase, self.why, self._alive_at = phase, why, time.monotonic()

    def _set_build(self, build: int | None) -> None:
        self.build = build
        self._metrics.build.labels(self.projection).set(build or 0)
