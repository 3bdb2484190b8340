"""A rebuild beside a broker that goes away in the middle of its replay."""

from __future__ import annotations

import json
import threading

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.projections.rebuild import Options, Progress, rebuild
from tests import projects
from tests.own_broker import own_broker
from tests.projects import count, placed, states

EVENTS = 16_000
PADDING = "x" * 1000


@pytest.fixture
def broker():
    with own_broker() as started:
        yield started


@pytest.fixture
def filled(tmp_path, make_settings, monkeypatch, broker):
    """A project on a broker of its own, with more in its topic than is read ahead."""
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    admin.create_topics([NewTopic("orders", 4, 1)])["orders"].result(30)
    producer = Producer({"bootstrap.servers": broker.address, "batch.size": 65_536, "log_level": 0})
    for key, value in map(placed, range(EVENTS)):
        producer.produce("orders", json.dumps({**value, "padding": PADDING}), key)
        producer.poll(0)
    assert producer.flush(60) == 0
    projects.write(tmp_path, projects.ORDERS.format(topic="orders"))
    settings = make_settings(tmp_path, projections={"memory_mb": 16, "workers": 2})
    return settings.model_copy(update={"kafka": {"bootstrap.servers": broker.address}})


def test_a_broker_killed_in_the_middle_of_the_replay_costs_nothing(filled, broker, db):
    restarts = []

    def kill_once(said):
        if isinstance(said, Progress) and not restarts:
            broker.kill()
            restarts.append(threading.Thread(target=broker.restart))
            restarts[0].start()

    report = rebuild(filled, ["orders"], Options(), listener=kill_once)
    restarts[0].join()
    assert report.projections[0].events == EVENTS
    assert count(db) == EVENTS
    assert states(db) == {1: "live"}


def test_a_throttled_rebuild_reads_everything(filled, db):
    rebuild(filled, ["orders"], Options(max_mb_per_s=20))
    assert count(db) == EVENTS
