"""Events that a projector cannot fold, and those of their keys that wait behind them, in order.

A key whose event is poison is held: its later events go into migrator.quarantine, too, so that none
is folded before the one that it follows. Other keys go on. All in the transaction of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from confluent_kafka import Message

from migrator.errors import MigratorError, RowRefused
from migrator.postgres.connect import Connection
from migrator.projections import quarantine
from migrator.projections.decoding import Undecodable
from migrator.projections.definition import Definition
from migrator.projections.fold import Unfoldable
from migrator.projections.poison import Poison, is_poison, poison

Offset = tuple[str | None, int | None, int | None]
WAITS = "an event of its key does not fold"


class Holding:
    """The keys of one build that are held, as far as this projector knows.

    Where the columns are reducers no order is to be kept, and nothing waits behind a poison event.
    """

    def __init__(self, conn: Connection, build: int, definition: Definition, limit: int) -> None:
        self._conn = conn
        self._build = build
        self._limit = limit
        self._keeps_order = not definition.reduced
        # With a key that the event gives, it is not known whose order an unreadable one would break.
        self._may_hold = limit > 0 and (definition.key is None or not self._keeps_order)
        self._poison: dict[Offset, Poison] = {}
        self._held: dict[bytes | None, int] = {}
        self.forget()

    def take(self, stopped: MigratorError, records: Sequence[Message]) -> bool:
        """Note the event that a batch has stopped at: the next attempt puts it aside.

        False where the event is not to blame, or may not be put aside. A row that the table does not
        take is the fault of its event where that is the batch's only one.
        """
        found = _found(stopped, records) if self._may_hold else None
        if found is not None:
            self._poison[found.topic, found.partition, found.offset] = found
        return found is not None

    def part(self, records: Sequence[Message]) -> Sequence[Message]:
        """Put poison and what waits behind it into quarantine; returns the others, in their order.

        In the caller's transaction, of which `committed` or `forget` is told.

        Raises:
            MigratorError: the quarantine is full.
        """
        keys = {record.key() for record in records} & self._held.keys() if self._held else set()
        if not keys and not self._poison:
            return records
        # Somebody may have released them meanwhile.
        held = quarantine.held_keys(self._conn, self._build, keys) if keys else {}
        free: list[Message] = []
        waiting: list[tuple[int, Poison]] = []
        for record in records:
            key = record.key()
            found = self._poison.get((record.topic(), record.partition(), record.offset()))
            if self._keeps_order and key in held:
                waiting.append((held[key], found or _waiting(record)))
            elif found is not None:
                entry = quarantine.hold_back(self._conn, self._build, found)
                if self._keeps_order:
                    held[key] = entry
            else:
                free.append(record)
        quarantine.hold_behind(self._conn, self._build, waiting)
        if len(free) < len(records):
            quarantine.refuse_too_many(self._conn, self._build, self._limit)
        self._held = {k: e for k, e in self._held.items() if k not in keys} | held
        return free

    def committed(self) -> None:
        self._poison.clear()

    def forget(self) -> None:
        """The transaction was rolled back, or nobody knows: read anew what is held."""
        if self._keeps_order:
            self._held = quarantine.held_keys(self._conn, self._build)


def _found(stopped: MigratorError, records: Sequence[Message]) -> Poison | None:
    if isinstance(stopped, RowRefused):
        return replace(poison(records[0], None, stopped), error=stopped.found)
    where = stopped.__context__
    if isinstance(where, Undecodable | Unfoldable) and is_poison(stopped.__cause__):
        assert isinstance(stopped.__cause__, Exception)
        return poison(where.record, where.type, stopped.__cause__)
    return None


def _waiting(record: Message) -> Poison:
    return replace(poison(record, None, Exception()), error=WAITS)
