"""Memory that is too small changes nothing: spilled, brought back, resumed, the rows are the same."""

from __future__ import annotations

import enum
import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, on
from migrator.errors import Overtaken, Refused
from migrator.kafka.log import Slice
from migrator.kafka.topics import PartitionRange, TopicRange
from migrator.postgres import ledger
from migrator.projections import build as builds
from migrator.projections.partition import PartitionFold
from migrator.projections.registry import Registered
from migrator.projections.store import PartitionStore, Target
from migrator.settings import Topic


class Mood(enum.Enum):
    good = 1
    bad = 2


class Added(Event):
    amount: int
    owner: str


class Closed(Event):
    owner: str = "x"


class Account(Projection, topic="t"):
    """A column of every kind that a row must come back with as it was."""

    __tablename__ = "accounts"
    account: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)
    history: Mapped[list[int]] = mapped_column(default=list)
    owners: Mapped[dict[str, Any]] = mapped_column(default=dict)
    exact: Mapped[Decimal] = mapped_column(default=Decimal("0.10"))
    mood: Mapped[Mood] = mapped_column(default=Mood.good)
    seen: Mapped[datetime | None]

    @on(Added)
    def added(self, event: Added) -> None:
        self.balance += event.amount
        self.history = [*self.history, event.amount]
        self.owners = {**self.owners, event.owner: self.owners.get(event.owner, 0) + 1}
        self.exact += event.amount
        self.mood = Mood.bad if self.mood is Mood.good else Mood.good
        self.seen = max(
            self.seen or datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
        )

    @on(Closed)
    def closed(self, event: Closed) -> None:
        self.delete()


class Owned(Projection, topic="t", key=lambda e: (e.owner, len(e.owner)), co_partitioned=True):
    """A key of two columns, which the event gives."""

    __tablename__ = "owned"
    owner: Mapped[str] = mapped_column(primary_key=True)
    length: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)

    @on(Added)
    def added(self, event: Added) -> None:
        self.count += 1

    @on(Closed)
    def closed(self, event: Closed) -> None:
        self.delete()


class Numbered(Projection, topic="t"):
    """A key that is parsed from the record's."""

    __tablename__ = "numbered"
    number: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=0)

    @on(Added)
    def added(self, event: Added) -> None:
        self.total += event.amount

    @on(Closed)
    def closed(self, event: Closed) -> None:
        self.delete()


class Record:
    def __init__(self, offset: int, key: str, value: Event | None) -> None:
        self._offset, self._key, self._value = offset, key, value

    def key(self) -> bytes:
        return self._key.encode()

    def value(self) -> bytes | None:
        if self._value is None:
            return None
        data = {name: getattr(self._value, name) for name in self._value.__struct_fields__}
        return json.dumps({"type": type(self._value).__name__, "data": data}).encode()

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def headers(self) -> None:
        return None


owners = st.sampled_from(["x", "yy", "ü\t\\"])
changes = st.one_of(
    st.builds(Added, amount=st.integers(-9, 9), owner=owners), st.builds(Closed, owner=owners)
)
logs = st.lists(
    st.tuples(
        st.sampled_from("12345"), changes, st.sampled_from(["go on", "go on", "spill", "kill"])
    ),
    max_size=30,
)


def begun(db: Any, projections: list[type[Projection]], end: int) -> list[Target]:
    """A build of each projection that shall read `end` offsets of one partition."""
    found = []
    topic = TopicRange("t", str(uuid.uuid4()), (PartitionRange(0, 0, end),))
    for projection in projections:
        definition = projection.__definition__
        build = builds.create(db, Registered(definition, "hash", Path("p.py")), "public", [topic])
        builds.start_replay(db, build, [topic])
        found.append(Target(build.build, build.schema, definition.name, "hash"))
    return found


def started(
    db: Any, projections: list[type[Projection]], targets: list[Target], end: int
) -> tuple[int, PartitionFold, PartitionStore]:
    """What a worker does when it takes a partition up."""
    (next_offset,) = {builds.positions(db, t.build)[0].next_offset for t in targets}
    fold = PartitionFold({"t": Topic()}, [p.__definition__ for p in projections])
    store = PartitionStore(db, ["t"], (Slice(0, next_offset, end),), targets, fold)
    return next_offset, fold, store


def rows_of(db: Any, target: Target) -> list[Any]:
    query = f"SELECT * FROM {target.schema}.{target.projection} ORDER BY 1, 2"
    return db.execute(query).fetchall()


@pytest.fixture
def autocommit(db):
    db.autocommit = True
    db.execute("SET timezone = 'UTC'")
    ledger.ensure(db)
    return db


def test_spilled_and_killed_at_any_event_a_partition_gives_the_rows_of_one_in_memory(autocommit):
    db = autocommit

    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(logs)
    def check(log):
        projections = [Account, Owned, Numbered]
        records = [Record(n, key, value) for n, (key, value, _) in enumerate(log)]
        at_once = begun(db, projections, len(log))
        _, fold, store = started(db, projections, at_once, len(log))
        if records:
            fold.apply(records)
        store.finish()

        piecemeal = begun(db, projections, len(log))
        position, fold, store = started(db, projections, piecemeal, len(log))
        fates = [fate for _, _, fate in log]
        while position < len(log):
            fold.apply([records[position]])
            fate, fates[position] = fates[position], "go on"
            position += 1
            if fate == "spill":
                store.spill()
                assert fold.rows == 0 or position == len(log)
            elif fate == "kill":
                position, fold, store = started(db, projections, piecemeal, len(log))
        store.finish()

        for one, other in zip(at_once, piecemeal, strict=True):
            assert rows_of(db, one) == rows_of(db, other)
            (a,), (b,) = builds.positions(db, one.build), builds.positions(db, other.build)
            assert (a.next_offset, a.events, a.rows) == (b.next_offset, b.events, b.rows)

    check()


def test_nothing_of_a_spill_is_left_at_the_end(autocommit):
    (target,) = begun(autocommit, [Account], 2)
    _, fold, store = started(autocommit, [Account], [target], 2)
    fold.apply([Record(0, "a", Added(amount=1, owner="x"))])
    store.spill()
    names = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
    assert len(autocommit.execute(names, (target.schema,)).fetchall()) == 2
    fold.apply([Record(1, "a", Added(amount=1, owner="x"))])
    store.finish()
    assert autocommit.execute(names, (target.schema,)).fetchall() == [("accounts",)]


def test_a_spill_at_the_end_waits_for_the_finish_or_a_kill_between_them_would_lose_the_rows(
    autocommit,
):
    (target,) = begun(autocommit, [Account], 1)
    _, fold, store = started(autocommit, [Account], [target], 1)
    fold.apply([Record(0, "a", Added(amount=1, owner="x"))])
    store.spill()
    assert builds.positions(autocommit, target.build)[0].lag == 1


def test_a_worker_whose_position_another_has_moved_writes_nothing(autocommit):
    (target,) = begun(autocommit, [Account], 2)
    _, fold, store = started(autocommit, [Account], [target], 2)
    _, other_fold, other_store = started(autocommit, [Account], [target], 2)
    for each in (fold, other_fold):
        each.apply([Record(0, "a", Added(amount=1, owner="x"))])
    store.spill()
    with pytest.raises(Overtaken, match="another worker has moved the position of partition 0"):
        other_store.spill()
    assert autocommit.execute(
        f"SELECT count(*) FROM {target.schema}.migrator_spill_0"
    ).fetchone() == (1,)


def test_a_worker_whose_position_another_session_holds_gives_way(autocommit, database_url):
    (target,) = begun(autocommit, [Account], 1)
    _, fold, store = started(autocommit, [Account], [target], 1)
    fold.apply([Record(0, "a", Added(amount=1, owner="x"))])
    autocommit.execute("SET lock_timeout = '1ms'")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM migrator.position FOR UPDATE")
        with pytest.raises(Overtaken, match="another session holds the position of partition 0"):
            store.finish()
    autocommit.execute("RESET lock_timeout")
    store.finish()
    assert builds.positions(autocommit, target.build)[0].lag == 0


def test_a_row_that_the_table_does_not_take_is_refused_in_a_spill_too(autocommit):
    (target,) = begun(autocommit, [Account], 2)
    _, fold, store = started(autocommit, [Account], [target], 2)
    fold.apply([Record(0, "a", Added(amount=2**40, owner="x"))])
    with pytest.raises(Refused, match="PostgreSQL does not take a row of partition 0"):
        store.spill()
    assert builds.positions(autocommit, target.build)[0].next_offset == 0
