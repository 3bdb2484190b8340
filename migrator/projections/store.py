"""Commit the rows of a partition together with its position, for every build of a pass at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from migrator.errors import Overtaken, Refused
from migrator.kafka.log import Part, Slice
from migrator.postgres.connect import Connection
from migrator.projections import quarantine
from migrator.projections.partition import PartitionFold
from migrator.projections.quarantine import Quarantined
from migrator.projections.spill import Spill


@dataclass(frozen=True)
class Target:
    """A build that the pass feeds."""

    build: int
    schema: str
    projection: str
    definition_hash: str


class PartitionStore:
    """Where one partition's rows go: to PostgreSQL when memory is full, to the shadows at its end.

    `conn` is in autocommit mode; each call is a transaction. Where several topics are merged, the
    positions of all move together; the rows are counted at the first.
    """

    def __init__(
        self,
        conn: Connection,
        topics: Sequence[str],
        part: Part,
        targets: Sequence[Target],
        partition: PartitionFold,
        *,
        limit: int = 0,
    ) -> None:
        self._conn = conn
        self._limit = limit
        self._parts = dict(zip(topics, part, strict=True))
        self._number = part[0].partition
        self._partition = partition
        self._next_offsets = {topic: each.start for topic, each in self._parts.items()}
        self._events: dict[str, int] = dict.fromkeys(topics, 0)
        self._quarantined: list[Quarantined] = []
        self._spills = [
            (target, Spill(conn, target.schema, self._number, fold))
            for target, fold in zip(targets, partition.folds, strict=True)
        ]

    def spill(self) -> None:
        """Write all rows and the position, and forget the rows; but nothing at the partition's end.

        A partition whose position is at its end is finished: nobody would move what was spilled.

        Raises:
            Refused: PostgreSQL does not take a row; nothing is written.
            Overtaken: another worker has moved, or holds, the position.
        """
        next_offsets = {**self._next_offsets, **self._partition.reached}
        expected = sum(part.end - next_offsets[topic] for topic, part in self._parts.items())
        if expected > 0:
            self._commit(next_offsets, lambda spill: spill.write(expected))

    def finish(self) -> None:
        """Write everything to the shadows and set the position to the partition's end.

        Raises:
            As `spill`.
        """
        ends = {topic: part.end for topic, part in self._parts.items()}
        self._commit(ends, lambda spill: spill.finish())

    def _commit(self, next_offsets: dict[str, int], write: Callable[[Spill], int | None]) -> None:
        with self._explained(), self._conn.transaction():
            for target, spill in self._spills:
                for topic, next_offset in next_offsets.items():
                    self._advance(target, topic, next_offset)
                rows = write(spill)
                if rows:
                    self._conn.execute(
                        """UPDATE migrator.position SET rows = %s
                           WHERE build = %s AND topic = %s AND partition = %s""",
                        (rows, target.build, next(iter(self._parts)), self._number),
                    )
            self._hold()
        self._next_offsets, self._events = next_offsets, dict(self._partition.events)
        self._forget_held()

    @property
    def left(self) -> Part:
        """What is still to be read behind the last commit."""
        return tuple(
            Slice(self._number, self._next_offsets[topic], part.end)
            for topic, part in self._parts.items()
        )

    def _hold(self) -> None:
        """Last in the transaction: it keeps other workers from counting until the commit."""
        for (target, _), held in zip(self._spills, self._partition.held, strict=True):
            if held:
                quarantine.hold(self._conn, target.build, held, self._limit)

    def _forget_held(self) -> None:
        if not any(self._partition.held):
            return
        for (target, _), held in zip(self._spills, self._partition.held, strict=True):
            self._quarantined += [quarantine.told(target.projection, each) for each in held]
            held.clear()
        builds = [target.build for target, _ in self._spills]
        self._partition.room = [quarantine.room(self._conn, b, self._limit) for b in builds]

    def taken(self) -> list[Quarantined]:
        """What commits have put into quarantine since this was last asked."""
        found, self._quarantined = self._quarantined, []
        return found

    def _advance(self, target: Target, topic: str, next_offset: int) -> None:
        """Move the position from where this worker left it: whoever else moved it keeps it."""
        moved = self._conn.execute(
            """UPDATE migrator.position
               SET next_offset = %(to)s, events = events + %(events)s,
                   changed_at = clock_timestamp()
               WHERE build = %(build)s AND topic = %(topic)s AND partition = %(partition)s
                 AND next_offset = %(from)s AND end_offset = %(end)s""",
            {
                "build": target.build,
                "topic": topic,
                "partition": self._number,
                "from": self._next_offsets[topic],
                "to": next_offset,
                "end": self._parts[topic].end,
                "events": self._partition.events[topic] - self._events[topic],
            },
        )
        if moved.rowcount != 1:
            raise Overtaken(
                f"another worker has moved the position of partition {self._number} "
                f"in build {target.build}",
                expected=f"next_offset {self._next_offsets[topic]}, as this one left it",
                next_step="run the same command again: it goes on from what is committed",
                build=target.build,
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        number = self._number
        try:
            yield
        except psycopg.errors.LockNotAvailable as exc:
            raise Overtaken(
                f"another session holds the position of partition {number}",
                expected="one worker a partition; one that was given up may still be running",
                next_step="run the same command again: it goes on from what is committed",
            ) from exc
        except psycopg.DataError as exc:
            raise Refused(
                f"PostgreSQL does not take a row of partition {number}: "
                f"{exc.diag.message_primary} ({exc.diag.context})",
                expected="values that fit the projection's columns",
                next_step="correct the projection, then run the same command again",
            ) from exc
        except psycopg.errors.IntegrityError as exc:
            raise _integrity(exc, number) from exc


def _integrity(exc: psycopg.errors.IntegrityError, partition: int) -> Refused:
    said = exc.diag
    return Refused(
        f"a row of partition {partition} has no value for {said.table_name}.{said.column_name}"
        if isinstance(exc, psycopg.errors.NotNullViolation)
        else f"PostgreSQL does not take a row of partition {partition}: {said.message_primary}",
        expected="every handler that makes a row to fill its NOT NULL columns",
        next_step="give the column a default or make it nullable (Mapped[... | None]), "
        "then run the same command again",
        detail=said.message_detail,
    )
