"""One pass over a partition for several projections: each folds its own classes of the same events."""

from __future__ import annotations

import json

from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, on
from migrator.projections.partition import PartitionFold
from migrator.settings import Topic
from tests.unit.test_decoding import Record


class KeyedRecord(Record):
    def __init__(self, key: str, event_type: str, **data: int) -> None:
        super().__init__(json.dumps({"type": event_type, "data": data}).encode())
        self._key = key.encode()

    def key(self) -> bytes:
        return self._key

    def offset(self) -> int:
        return 0


def projection(name: str, field: str, *ignored: str) -> type[Projection]:
    """A projection with an event class of its own, which adds up one field of `Moved`."""

    class Moved(Event):
        __annotations__ = {field: int}

    class Total(Projection, topic="t"):
        __tablename__ = name
        ignores = ignored
        key: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int] = mapped_column(default=0)

        @on(Moved)
        def moved(self, event: Moved) -> None:
            self.total += getattr(event, field)

    return Total


def test_projections_whose_event_classes_differ_share_a_pass():
    classes = [projection("metres", "x", "Seen"), projection("litres", "y", "Seen")]
    fold = PartitionFold({"t": Topic()}, [each.__definition__ for each in classes])
    fold.apply(
        [
            KeyedRecord("a", "Moved", x=1, y=10),
            KeyedRecord("a", "Seen"),
            KeyedRecord("b", "Moved", x=2, y=20),
            KeyedRecord("a", "Moved", x=3, y=30),
        ]
    )
    totals = [{key: row.total for key, row in each.rows.items()} for each in fold.folds]
    assert totals == [{b"a": 4, b"b": 2}, {b"a": 40, b"b": 20}]
    assert fold.events == {"t": 4}
