"""A log that changes under its reader, and a broker that goes away: no record lost, none twice."""

from __future__ import annotations

import threading
import uuid
from contextlib import closing
from dataclasses import replace

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.errors import MigratorError
from migrator.kafka import topics
from migrator.kafka.log import Limits, Slice, read_in_turn
from tests.own_broker import own_broker
from tests.projects import remake

EVENTS = 20_000
SMALL = Limits(memory_bytes=131_072, quiet_s=60)  # so that little is read ahead of a fault


@pytest.fixture
def kafka(brokers):
    return {"bootstrap.servers": brokers, "log_level": 0}


@pytest.fixture
def admin(brokers):
    return AdminClient({"bootstrap.servers": brokers, "log_level": 0})


def fill(brokers, name, count=EVENTS):
    # In batches of which several fit into what is read ahead, and many do not.
    producer = Producer({"bootstrap.servers": brokers, "batch.size": 16_384, "log_level": 0})
    for number in range(count):
        producer.produce(name, b"%06d" % number + b"." * 244, b"k", partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0


def make(brokers, name):
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    fill(brokers, name)


@pytest.fixture(scope="module")
def broker():
    with own_broker() as started:
        yield started


@pytest.fixture
def own(broker):
    """The broker that may be killed, its clients' properties, and a filled topic."""
    if not broker.is_running:
        broker.restart()
    name = f"t{uuid.uuid4().hex}"
    make(broker.address, name)
    return broker, {"bootstrap.servers": broker.address, "log_level": 0}, name


def numbers(batches):
    return [int(record.value()[:6]) for records in batches for record in records]


@pytest.fixture
def begun(kafka, topic, brokers):
    """A topic, its reader after one batch, and the numbers in that batch."""
    name = topic(partitions=1)
    fill(brokers, name)
    reading = read_in_turn(
        kafka, name, [Slice(0, 0, EVENTS)], limits=SMALL, topic_id=topics.describe(kafka, name).id
    )
    with closing(reading):
        _, batches = next(reading)
        yield name, batches, numbers([next(batches)])


def test_a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing(own):
    broker, kafka, name = own
    with closing(read_in_turn(kafka, name, [Slice(0, 0, EVENTS)], limits=SMALL)) as reading:
        _, batches = next(reading)
        seen = numbers([next(batches)])
        broker.kill()
        back = threading.Thread(target=broker.restart)
        back.start()
        seen += numbers(batches)
        back.join()
    assert seen == list(range(EVENTS))


def test_a_broker_that_hangs_is_told_in_time_and_read_again_when_it_answers(own):
    broker, kafka, name = own
    impatient = replace(SMALL, quiet_s=1.0)
    with closing(read_in_turn(kafka, name, [Slice(0, 0, EVENTS)], limits=impatient)) as reading:
        _, batches = next(reading)
        seen = numbers([next(batches)])
        with (
            broker.stopped(),
            pytest.raises(MigratorError, match="nothing came from partition 0") as caught,
        ):
            seen += numbers(batches)
    reached = caught.value.data["offset"]
    again = read_in_turn(kafka, name, [Slice(0, reached, EVENTS)], limits=SMALL)
    assert [n for _, batches in again for n in numbers(batches)] == list(range(reached, EVENTS))


def test_a_broker_that_stays_away_is_told_with_what_the_client_last_said(own):
    broker, kafka, name = own
    impatient = replace(SMALL, quiet_s=1.0)
    with closing(read_in_turn(kafka, name, [Slice(0, 0, EVENTS)], limits=impatient)) as reading:
        _, batches = next(reading)
        next(batches)
        broker.kill()
        with pytest.raises(MigratorError, match=r"the client last said: .*refused"):
            numbers(batches)


def test_a_log_that_is_cut_under_its_reader_is_told_with_its_new_beginning(begun, admin):
    name, batches, _ = begun
    cut = TopicPartition(name, 0, EVENTS - 10)
    admin.delete_records([cut])[cut].result(30)
    with pytest.raises(MigratorError, match=r"is gone, the log now begins at 19990") as caught:
        numbers(batches)
    assert caught.value.data["low"] == EVENTS - 10
    assert 0 < caught.value.data["offset"] < EVENTS - 10


def test_a_topic_that_is_deleted_under_its_reader_is_told(begun, admin):
    name, batches, _ = begun
    admin.delete_topics([name])[name].result(30)
    with pytest.raises(MigratorError, match=f"topic {name} was deleted while it was read"):
        numbers(batches)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def test_a_topic_that_is_made_anew_under_its_reader_is_told(begun, admin, brokers):
    name, batches, _ = begun
    remake(admin, name, 1)
    fill(brokers, name, 10)
    with pytest.raises(MigratorError, match="was deleted and made anew"):
        numbers(batches)


def test_a_throttled_reader_reads_everything(kafka, topic, brokers):
    name = topic(partitions=1)
    fill(brokers, name, 4000)
    limits = replace(SMALL, bytes_per_s=2_000_000.0)
    read = read_in_turn(kafka, name, [Slice(0, 0, 4000)], limits=limits)
    assert [n for _, batches in read for n in numbers(batches)] == list(range(4000))
