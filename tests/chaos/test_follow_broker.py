"""The projector over brokers that are killed and come back."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.projections import build as builds
from migrator.projections.rebuild import rebuild
from tests.integration.test_follow import (  # noqa: F401 - a fixture
    started,
    until,
)
from tests.own_broker import own_broker
from tests.projects import ORDERS, placed, write

pytestmark = pytest.mark.chaos


def send(address: str, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    for number in numbers:
        key, value = placed(number)
        producer.produce("orders", json.dumps(value).encode(), key)
    assert producer.flush(120) == 0


def test_it_goes_on_when_the_broker_was_killed(tmp_path, make_settings, started, db):  # noqa: F811
    write(tmp_path, ORDERS.format(topic="orders"))
    with own_broker() as broker:
        settings = make_settings(tmp_path, kafka={"bootstrap.servers": broker.address})
        admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
        admin.create_topics([NewTopic("orders", 4, 1)])["orders"].result(30)
        send(broker.address, range(10))
        rebuild(settings, ["orders"])
        running = started(settings)
        until(lambda: running.heard("following"))
        for turn in range(1, 4):
            send(broker.address, range(turn * 1000, turn * 1000 + 500))
            broker.kill()
            broker.restart()
            expected = (10 + 500 * turn,)
            until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == expected)  # noqa: B023
        running.end()
        assert sum(p.events for p in builds.positions(db, 1)) == 1510
