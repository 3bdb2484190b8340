"""Write what a running replay says of itself to migrator.progress, for `status` in another process.

Positions move at commits alone, which may be minutes apart. The parent of the workers writes here what
it hears, once a second at most and only when it hears something, so that the age of a row is the age
of the news. Each write is a transaction of one statement on rows that nobody else writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import psycopg

from migrator.postgres.connect import Connection
from migrator.projections.progress import Place, Tracker
from migrator.projections.replay import Progress, Task

EVERY_S = 1.0


class Reporter:
    """Passes on what workers report, and writes the news of it. A write that fails is left out."""

    def __init__(
        self, conn: Connection, tasks: Iterable[Task], listener: Callable[[Any], None]
    ) -> None:
        self._conn = conn
        self._listener = listener
        self._tracker = Tracker()
        self._next_write = time.monotonic() + EVERY_S
        self._builds: dict[Place, list[int]] = {}
        for task in tasks:
            for part, targets in task.targets.items():
                for topic, each in zip(task.topics, part, strict=True):
                    self._builds[topic, each.partition] = [target.build for target in targets]
                    # Known before its turn, or the time left would be too short.
                    self.heard(Progress(topic, each.partition, each.start, each.end, 0))
        self.forget()

    def heard(self, said: object) -> None:
        self._listener(said)
        if not isinstance(said, Progress):
            return
        self._tracker.add(said)
        if time.monotonic() >= self._next_write:
            with suppress(psycopg.Error):
                self._write()
            self._next_write = time.monotonic() + EVERY_S

    def forget(self) -> None:
        """Delete the news of these builds: of a run before, or as the positions say it all."""
        builds = sorted({build for each in self._builds.values() for build in each})
        with suppress(psycopg.Error):
            self._conn.execute("DELETE FROM migrator.progress WHERE build = ANY(%s)", (builds,))

    def _write(self) -> None:
        rows = [
            (build, r.topic, r.partition, r.next_offset, r.end_offset, r.events_per_s,
             r.seconds_left, r.news_age_s)
            for r in self._tracker.reaches()
            if r.news_age_s is not None
            for build in self._builds[r.topic, r.partition]
        ]  # fmt: skip
        self._conn.execute(_WRITE, [list(column) for column in zip(*rows, strict=True)])


_WRITE = b"""
INSERT INTO migrator.progress
  (build, topic, partition, next_offset, end_offset, events_per_s, seconds_left, heard_at)
SELECT build, topic, partition, next_offset, end_offset, events_per_s, seconds_left,
       clock_timestamp() - age_s * interval '1 second'
FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::float8[],
            %s::float8[], %s::float8[])
  AS n (build, topic, partition, next_offset, end_offset, events_per_s, seconds_left, age_s)
ON CONFLICT (build, topic, partition) DO UPDATE SET
  next_offset = excluded.next_offset, end_offset = excluded.end_offset,
  events_per_s = excluded.events_per_s, seconds_left = excluded.seconds_left,
  heard_at = excluded.heard_at
"""
