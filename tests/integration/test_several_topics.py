"""A projection over several topics: one partition of each, merged by timestamp, resumable anywhere."""

from __future__ import annotations

import itertools
import json

import pytest
from confluent_kafka import Producer

from migrator.errors import Refused, UsageError
from migrator.kafka import topics
from migrator.kafka.log import BATCH, Slice, read_together
from migrator.postgres import ledger
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.rebuild import Options, plan, rebuild
from migrator.projections.replay import Progress, Task, replay
from migrator.projections.store import Target
from tests.projects import event, write

BALANCES = """
    from sqlalchemy import ARRAY, Text
    from sqlalchemy.orm import Mapped, mapped_column

    from migrator import Event, Meta, Projection, on


    class Placed(Event):
        cents: int


    class Paid(Event):
        cents: int


    class Balance(Projection, topic=("{orders}", "{payments}")):
        __tablename__ = "balances"
        account: Mapped[str] = mapped_column(primary_key=True)
        owed: Mapped[int] = mapped_column(default=0)
        story: Mapped[list[str]] = mapped_column(default=list)

        @on(Placed, Paid)
        def moved(self, event, meta: Meta) -> None:
            is_payment = meta.topic.endswith("payments")
            self.owed += -event.cents if is_payment else event.cents
            self.story = [*self.story, f"{{meta.type}} {{event.cents}}"]


    class Order(Projection, topic="{orders}"):
        __tablename__ = "orders"
        account: Mapped[str] = mapped_column(primary_key=True)
        orders: Mapped[int] = mapped_column(default=0)

        @on(Placed)
        def placed(self, event: Placed) -> None:
            self.orders += 1
"""


@pytest.fixture
def timed(brokers):
    """`timed(topic, [(milliseconds, key, event), ...])` into partition 0."""

    def send(topic, records, *, partition=0):
        producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
        for at, key, value in records:
            payload = json.dumps(value).encode()
            producer.produce(topic, payload, key, partition=partition, timestamp=at)
        assert producer.flush(60) == 0

    return send


def placed(at, cents, key="a"):
    return at, key, event("Placed", cents=cents)


def paid(at, cents, key="a"):
    return at, key, event("Paid", cents=cents)


@pytest.fixture
def shop(tmp_path, make_settings, topic):
    """A project over two topics: settings, root, and the topics' names."""

    def made(partitions=(2, 2)):
        orders, payments = (
            topic(name, partitions=count)
            for name, count in zip(("orders", "payments"), partitions, strict=True)
        )
        write(tmp_path, BALANCES.format(orders=orders, payments=payments), "balances.py")
        return make_settings(tmp_path), orders, payments

    return made


def test_events_of_a_key_are_merged_by_timestamp_then_by_the_topics_order(shop, timed, db):
    settings, orders, payments = shop()
    timed(payments, [paid(5, 1), paid(20, 2), paid(7, 3), paid(30, 4)])
    timed(orders, [placed(10, 5), placed(20, 6), placed(40, 7, "b")])
    rebuild(settings, ["balances"])
    assert db.execute("SELECT * FROM balances ORDER BY 1").fetchall() == [
        # Of 20 and 20 the order goes first; a payment that lies after it in its own log stays there.
        ("a", 1, ["Paid 1", "Placed 5", "Placed 6", "Paid 2", "Paid 3", "Paid 4"]),
        ("b", 7, ["Placed 7"]),
    ]
    positions = builds.positions(db, 1)
    assert {(p.topic, p.partition): (p.next_offset, p.events) for p in positions} == {
        (orders, 0): (3, 3),
        (orders, 1): (0, 0),
        (payments, 0): (4, 4),
        (payments, 1): (0, 0),
    }


def test_a_projection_over_two_topics_and_one_over_one_of_them_are_rebuilt_together(
    shop, timed, db
):
    settings, orders, payments = shop()
    timed(orders, [placed(1, 5), placed(2, 6)])
    timed(payments, [paid(3, 1)])
    report = rebuild(settings, ["balances", "orders"])
    assert db.execute("SELECT * FROM orders").fetchall() == [("a", 2)]
    assert db.execute("SELECT owed FROM balances").fetchall() == [(10,)]
    assert [(r.projection, r.events, r.lag_events) for r in report.projections] == [
        ("balances", 3, 0),
        ("orders", 2, 0),
    ]


def test_topics_of_different_partition_counts_are_refused_with_the_counts(shop, timed, db):
    settings, orders, payments = shop(partitions=(2, 3))
    timed(orders, [placed(1, 5)])
    timed(payments, [paid(1, 5)])
    with pytest.raises(Refused, match=f"{orders} has 2 partitions, {payments} has 3 partitions"):
        rebuild(settings, ["balances"])
    assert not ledger.exists(db)


def test_a_key_that_lies_in_different_partitions_of_the_topics_is_named(shop, timed, db):
    settings, orders, payments = shop()
    timed(orders, [placed(1, 5)], partition=0)
    timed(payments, [paid(1, 5)], partition=1)
    with pytest.raises(Refused, match=r"met in two partitions.*\(a\)"):
        rebuild(settings, ["balances"])


def test_a_dry_run_names_both_topics(shop, timed):
    settings, orders, payments = shop()
    timed(orders, [placed(1, 5)])
    timed(payments, [paid(1, 5)])
    (planned,), _ = plan(settings, ["balances"], Options())
    assert (planned.topic, planned.events) == (f"{orders} and {payments}", 2)


def test_a_missing_topic_of_two_is_named(shop, timed):
    settings, _, payments = shop()
    file = settings.projections_dir / "balances.py"
    file.write_text(file.read_text().replace(payments, payments + "x"))
    with pytest.raises(UsageError, match="unknown topic"):
        rebuild(settings, ["balances"])


def test_an_event_that_does_not_fold_is_left_out_of_the_merge_and_the_others_are_not(
    shop, timed, db
):
    settings, orders, payments = shop()
    timed(orders, [placed(1, 5), placed(4, 6)])
    timed(payments, [paid(2, 1), (3, "a", event("Paid", cents=2**60)), paid(5, 2)])
    file = settings.projections_dir / "balances.py"
    failing = "self.owed += -event.cents if is_payment and 1 // (event.cents != 2**60) else"
    file.write_text(
        file.read_text().replace("self.owed += -event.cents if is_payment else", failing)
    )
    report = rebuild(settings, ["balances"], Options(quarantine=1))
    assert db.execute("SELECT story FROM balances").fetchall() == [
        (["Placed 5", "Paid 1", "Placed 6", "Paid 2"],)
    ]
    assert report.projections[0].quarantined == 1
    held = db.execute("SELECT topic, event_offset FROM migrator.quarantine").fetchall()
    assert held == [(payments, 1)]


def test_a_merge_that_stopped_anywhere_goes_on_alike(shop, timed, brokers):
    _, orders, payments = shop()
    timed(orders, [placed(at, at) for at in (3, 1, 4, 1, 5, 9, 2)])
    timed(payments, [paid(at, at) for at in (2, 7, 1, 8, 2, 8)])
    kafka = {"bootstrap.servers": brokers}
    names = {orders: None, payments: None}

    def read(starts):
        part = (Slice(0, starts[0], 7), Slice(0, starts[1], 6))
        return [
            (record.topic(), record.offset())
            for _, batches in read_together(kafka, names, [part])
            for record in itertools.chain.from_iterable(batches)
        ]

    whole = read((0, 0))
    assert len(whole) == 13
    for stopped in range(14):
        reached = [sum(topic == name for topic, _ in whole[:stopped]) for name in names]
        assert read(reached) == whole[stopped:]


def test_a_worker_that_is_killed_with_two_topics_half_read_goes_on_to_the_same_rows(
    shop, timed, db
):
    settings, orders, payments = shop()
    events = 3 * BATCH
    timed(orders, [placed(n * 7 % 5000, 1, f"k{n % 300}") for n in range(events)])
    timed(payments, [paid(n * 11 % 5000, 1, f"k{n % 400}") for n in range(events)])
    ledger.ensure(db)
    registered = registry.load(settings.projections_dir)["balances"]
    described = [topics.describe(settings.kafka_config, name) for name in (orders, payments)]
    ids = {each.name: each.id for each in described}
    rows = []
    for kills in (0, 3):
        build = builds.create(db, registered, "public", described)
        builds.start_replay(db, build, described)
        target = Target(build.build, build.schema, "balances", registered.hash)
        for _ in range(kills):
            with pytest.raises(Killed):
                replay(task(settings, db, build, target, ids, memory=1), Killer(1))
        reached = [p.next_offset for p in builds.positions(db, build.build) if p.partition == 0]
        assert (min(reached) > 0) is (max(reached) > 0) is (kills > 0)
        replay(
            task(settings, db, build, target, ids, memory=1 if kills else 10**12), lambda _: None
        )
        rows.append(db.execute(f"SELECT * FROM {build.schema}.balances ORDER BY 1").fetchall())
    assert rows[0] == rows[1]
    assert len(rows[0]) == 400


class Killed(Exception):
    pass


class Killer:
    """Stops a worker when it has reported so many batches of the first topic."""

    def __init__(self, batches: int) -> None:
        self._left = batches * 2

    def __call__(self, _said: Progress) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


def task(settings, db, build, target, ids, *, memory):
    parts = builds.parts_left(db, build, list(ids))
    return Task(settings, settings.projections_dir, ids, dict.fromkeys(parts, (target,)), memory)
