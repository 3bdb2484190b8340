"""Reading a log: to the captured end, each committed record once, gaps and all."""

from __future__ import annotations

import pytest

from migrator.errors import CannotConnect, MigratorError, UsageError
from migrator.kafka import topics
from migrator.kafka.log import Slice, read_in_turn


def numbers(kafka, topic, slices):
    return [
        (r.partition(), r.offset(), r.value().decode())
        for _, batches in read_in_turn(kafka, topic, slices)
        for records in batches
        for r in records
    ]


@pytest.fixture
def kafka(brokers):
    return {"bootstrap.servers": brokers, "log_level": 0}


def values(*texts):
    return [("k", text.encode()) for text in texts]


def test_it_ends_where_the_slice_ends_though_more_has_come(kafka, topic, produce):
    name = topic(partitions=1)
    produce(name, values("a", "b", "c", "d"))
    assert numbers(kafka, name, [Slice(0, 1, 3)]) == [(0, 1, "b"), (0, 2, "c")]


def test_it_ends_behind_the_control_records_of_transactions(kafka, topic, produce):
    name = topic(partitions=1)
    produce(name, values("a"), transactional=True)
    produce(name, values("b"), transactional=True, abort=True)
    produce(name, values("c"), transactional=True)
    (part,) = topics.describe(kafka, name).partitions
    assert part.end == 6
    assert numbers(kafka, name, [Slice(0, 0, part.end)]) == [(0, 0, "a"), (0, 4, "c")]


def test_it_ends_where_nothing_but_an_aborted_transaction_is_left(kafka, topic, produce):
    name = topic(partitions=1)
    produce(name, values("a", "b"), transactional=True, abort=True)
    (part,) = topics.describe(kafka, name).partitions
    assert numbers(kafka, name, [Slice(0, 0, part.end)]) == []


def test_every_partition_is_read_in_its_turn(kafka, topic, produce):
    name = topic(partitions=3)
    produce(name, values("a", "b"), partition=0)
    produce(name, values("c"), partition=2)
    slices = [Slice(p.partition, p.low, p.end) for p in topics.describe(kafka, name).partitions]
    assert numbers(kafka, name, slices) == [(0, 0, "a"), (0, 1, "b"), (2, 0, "c")]


def test_an_open_transaction_is_beyond_the_end(kafka, topic, produce, brokers):
    from confluent_kafka import Producer

    name = topic(partitions=1)
    produce(name, values("a"))
    hanging = Producer({"bootstrap.servers": brokers, "transactional.id": name, "log_level": 0})
    hanging.init_transactions(30)
    hanging.begin_transaction()
    hanging.produce(name, b"x", b"k")
    assert hanging.flush(30) == 0
    (part,) = topics.describe(kafka, name).partitions
    assert part.end == 1
    hanging.abort_transaction(30)


def test_an_offset_that_is_gone_is_an_error_and_no_silent_jump(kafka, topic, produce):
    name = topic(partitions=1)
    produce(name, values("a"))
    with pytest.raises(MigratorError, match=r"has lost its end: it now ends at 1, before"):
        numbers(kafka, name, [Slice(0, 5, 9)])


def test_a_missing_topic_names_the_nearest(kafka, topic):
    name = topic("orders")
    with pytest.raises(UsageError) as caught:
        topics.describe(kafka, f"{name}s")
    assert name in caught.value.expected


def test_a_broker_that_is_away_is_named_in_time():
    with pytest.raises(CannotConnect, match=r"127\.0\.0\.1:1"):
        topics.describe({"bootstrap.servers": "127.0.0.1:1"}, "x", timeout_s=0.5)
