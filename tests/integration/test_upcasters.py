"""Upcasters in a rebuild: a log of several versions gives the rows of the newest."""

from __future__ import annotations

import pytest

from migrator.errors import MigratorError
from migrator.projections.rebuild import rebuild
from tests.projects import edit, event

LIFTED = """class OrderPlaced(Event, version=3):
    customer_id: str
    total_cents: int


@upcast(OrderPlaced, from_version=1)
def in_cents(payload: dict) -> dict:
    return {"customer": payload["customer"], "total_cents": payload["euros"] * 100}


@upcast(OrderPlaced, from_version=2)
def by_id(payload: dict) -> dict:
    return {"customer_id": payload["customer"], "total_cents": payload["total_cents"]}
"""


@pytest.fixture
def lifted(project):
    edit(project, "import Event,", "import upcast, Event,")
    old = "class OrderPlaced(Event):\n    customer_id: str\n    total_cents: int\n"
    edit(project, old, LIFTED)
    return project


def versioned(number, version, **data):
    return (f"o{number}", {**event("OrderPlaced", **data), "version": version})


def test_payloads_of_every_version_reach_the_newest(lifted, produce, db):
    produce(
        lifted.topic,
        [
            ("o1", event("OrderPlaced", customer="c", euros=7)),
            versioned(2, 1, customer="c", euros=7),
            versioned(3, 2, customer="c", total_cents=700),
            versioned(4, 3, customer_id="c", total_cents=700),
            ("o4", event("OrderShipped", carrier="dhl")),
        ],
    )
    rebuild(lifted.settings, ["orders"])
    rows = db.execute(
        "SELECT order_id, customer_id, total_cents, carrier FROM orders ORDER BY 1"
    ).fetchall()
    lifted_rows = [(f"o{n}", "c", 700, None) for n in (1, 2, 3)]
    assert rows == [*lifted_rows, ("o4", "c", 700, "dhl")]


def test_an_upcaster_that_fails_is_said_with_its_place(lifted, produce, db):
    produce(lifted.topic, [versioned(4, 3, customer_id="c", total_cents=1)], partition=2)
    produce(lifted.topic, [versioned(1, 1, customer="c")], partition=2)
    with pytest.raises(MigratorError) as caught:
        rebuild(lifted.settings, ["orders"])
    assert "OrderPlaced: the upcaster of OrderPlaced from version 1, in_cents, failed: " in (
        caught.value.found
    )
    assert f"topic {lifted.topic}, partition 2, offset 1, key 'o1'" in caught.value.found
    assert "correct the upcaster" in caught.value.next_step


def test_an_edited_upcaster_makes_another_build(lifted, produce, db):
    produce(lifted.topic, [versioned(1, 1, customer="c", euros=7), ("o2", None)])
    rebuild(lifted.settings, ["orders"])
    edit(lifted, "* 100", "* 1000")
    rebuild(lifted.settings, ["orders"])
    assert db.execute("SELECT total_cents FROM orders").fetchall() == [(7000,)]
    hashes = db.execute("SELECT count(DISTINCT definition_hash) FROM migrator.build").fetchone()
    assert hashes == (2,)
