"""Read our partitions in micro-batches, and commit each with its positions to the live build.

A batch that meets something that passes (a lock, a lost connection, another projector) is given up,
and read again from where the database says. One that meets a poison event is tried again without it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import merge
from typing import TYPE_CHECKING

from confluent_kafka import Message

from migrator.errors import Fenced, MigratorError, Overtaken, Refused, RowRefused
from migrator.kafka.group import Gathered, Group, Place
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import quarantine, writers
from migrator.projections.apply import Applier
from migrator.projections.build import Build
from migrator.projections.holding import Holding
from migrator.projections.registry import Registered
from migrator.projections.vitals import Vitals
from migrator.projections.writers import Advance

if TYPE_CHECKING:
    from migrator.settings import Settings

WAIT_S = 0.5
LOOK_S = 1.0
TELL_S = 5.0
ASK_S = 0.2


class Moved(Exception):
    """Another build of the same definition is live."""


class Following:
    """One build, as long as it is live and the connection holds."""

    def __init__(
        self,
        conn: Connection,
        settings: Settings,
        registered: Registered,
        build: Build,
        group: Group,
        vitals: Vitals,
    ) -> None:
        definition = registered.definition
        self._conn = conn
        self._limits = settings.follow
        self._registered = registered
        self._build = build
        self._group = group
        self._vitals = vitals
        kinds = {name: settings.topic(name) for name in definition.topics}
        self._applier = Applier(conn, kinds, build, definition, build.target)
        self._holding = Holding(conn, build.build, definition, settings.follow.quarantine)
        self._next: dict[Place, int] = {}
        self._is_placed = False
        self._looked_at = self._stood_at = self._told_at = self._asked_at = 0.0

    def turn(self) -> None:
        """Gather one micro-batch and commit it.

        Raises:
            Moved, Fenced: another build is live, of the same definition or another.
            Overtaken: another projector has moved a position of ours.
            MigratorError: an event stops the projector; nothing of it is committed.
        """
        if self._group.is_moved or not self._is_placed:
            self._place()
        gathered = self._group.gather(
            self._limits.batch_events, WAIT_S, self._limits.batch_ms / 1000
        )
        if self._group.is_moved:
            return
        self._write(self._in_order(gathered), gathered.ends)
        self._look()
        self._tell()

    def is_past(self, until: Mapping[Place, int]) -> bool:
        """Whether all partitions, those of other processes too, have reached these offsets."""
        if time.monotonic() - self._asked_at < ASK_S:
            return False
        self._asked_at = time.monotonic()
        held = builds.positions(self._conn, self._build.build)
        return all(p.next_offset >= until.get((p.topic, p.partition), 0) for p in held)

    def _place(self) -> None:
        """Begin where the database says that our partitions stand."""
        held = {
            (p.topic, p.partition): p.next_offset
            for p in builds.positions(self._conn, self._build.build)
        }
        for topic, partition in self._group.assigned - held.keys():
            raise Refused(
                f"topic {topic} has a partition {partition} that build {self._build.build} does "
                "not know: keys that were in one partition may be in another now",
                expected="the partitions that the build was made from",
                next_step="migrator rebuild-projections builds it anew from all of them",
            )
        self._next = {place: held[place] for place in self._group.assigned}
        is_new = self._group.is_moved and bool(self._next)
        self._group.place(self._next)
        self._is_placed = True
        self._holding.forget()
        self._vitals.follows(self._build.build, self._next, is_new=is_new)

    def _in_order(self, gathered: Gathered) -> list[Message]:
        """Partition by partition; of several topics the same partition is merged, as in a rebuild."""
        names = self._registered.definition.topics
        ordered: list[Message] = []
        for partition in sorted({partition for _, partition in gathered.records}):
            streams = [gathered.records.get((name, partition), []) for name in names]
            ordered += merge(*streams, key=_timestamp) if len(names) > 1 else streams[0]
        return ordered

    def _write(self, records: Sequence[Message], ends: Mapping[Place, int]) -> None:
        left = deque([(records, ends)])
        while left:
            batch, reached = left.popleft()
            try:
                self._commit(batch, reached)
            except (Overtaken, Fenced):
                raise
            except MigratorError as exc:
                half = len(batch) // 2
                if isinstance(exc, RowRefused) and half:
                    # One of them has made the row; which one, smaller batches tell.
                    left.extendleft([(batch[half:], reached), (batch[:half], {})])
                elif self._holding.take(exc, batch):
                    left.appendleft((batch, reached))
                else:
                    raise

    def _commit(self, records: Sequence[Message], ends: Mapping[Place, int]) -> None:
        moves = self._moves(records, ends)
        if not moves:
            return
        began = time.perf_counter()
        try:
            with self._conn.transaction():
                self._assert_live()
                self._applier.apply(self._holding.part(records), moves)
        except MigratorError:
            self._holding.forget()
            raise
        self._holding.committed()
        self._next |= {(m.topic, m.partition): m.next_offset for m in moves}
        self._looked_at = time.monotonic()
        self._vitals.committed(len(records), time.perf_counter() - began)

    def _moves(self, records: Sequence[Message], ends: Mapping[Place, int]) -> list[Advance]:
        reached, counts = dict(ends), dict.fromkeys(ends, 0)
        for record in records:
            place = record.topic() or "", record.partition() or 0
            reached[place] = max(reached.get(place, 0), (record.offset() or 0) + 1)
            counts[place] = counts.get(place, 0) + 1
        return [
            Advance(*place, self._next[place], offset, counts[place])
            for place, offset in reached.items()
            if offset > self._next[place]
        ]

    def _assert_live(self) -> None:
        """Share the writers' lock, and be the writer of the build that is live then."""
        name, hash_ = self._registered.name, self._registered.hash
        if writers.assert_writer(self._conn, name, hash_) != self._build.build:
            raise Moved

    def _look(self) -> None:
        """See to it that a projector without events hears of a swap."""
        if time.monotonic() - self._looked_at > LOOK_S:
            with self._conn.transaction():
                self._assert_live()
            self._looked_at = time.monotonic()

    def _tell(self) -> None:
        """Say how far we are, at times: to metrics, and to the group for those who watch its lag."""
        now = time.monotonic()
        if now - self._stood_at > LOOK_S:
            self._stood_at = now
            waiting = quarantine.waiting(self._conn, self._build.build)
            self._vitals.stands(self._group.lag(self._next), *waiting)
        if now - self._told_at > TELL_S:
            self._told_at = now
            self._group.tell(self._next)


def _timestamp(record: Message) -> int:
    _, milliseconds = record.timestamp()
    return int(milliseconds)
