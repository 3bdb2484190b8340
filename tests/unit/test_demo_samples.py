"""The sample projections, folded in memory: what a new user reads is right."""

import json
import os
import shutil
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from migrator import settings
from migrator.demo import project
from migrator.demo.generate import OrderLives
from migrator.demo.purchases import Purchase
from migrator.demo.records import placed, records
from migrator.errors import MigratorError
from migrator.projections import registry
from migrator.projections.partition import PartitionFold
from migrator.settings import Topic


@pytest.fixture
def folder(tmp_path):
    project.lay_out(tmp_path)
    return tmp_path


class Record:
    """A record as it comes from the log."""

    def __init__(self, key, value):
        self._key, self._value = key, value

    def key(self):
        return self._key

    def value(self):
        return self._value

    def offset(self):
        return 0


def folded(folder, events):
    """Fold the events as the replay does: through their bytes."""
    known = registry.load(folder / "projections")
    fold = PartitionFold(
        {"t": Topic()}, [known[name].definition for name in ("orders", "customers")]
    )
    fold.apply([Record(key, value) for key, value in records(events)])
    orders, customers = fold.folds
    return orders.rows, customers.rows


def bought(line, customer, day, cents=1000):
    return placed(Purchase(line, customer, datetime(1997, 1, day, tzinfo=UTC), 1, cents))


def test_purchases_become_one_row_an_order_and_one_a_customer(folder):
    orders, customers = folded(
        folder, [bought(2, "00001", 1), bought(3, "00002", 2), bought(4, "00002", 9, 250)]
    )
    assert [(o.order_id, o.customer_id, o.status) for o in orders.values()] == [
        ("2", "00001", "placed"),
        ("3", "00002", "placed"),
        ("4", "00002", "placed"),
    ]
    second = customers["00002"]
    assert (second.orders, second.items, second.spent_cents) == (2, 2, 1250)
    assert (second.first_order_at.day, second.last_order_at.day) == (2, 9)


def test_made_up_lives_fold_to_what_their_maker_says(folder):
    lives = OrderLives(6000)
    orders, customers = folded(folder, lives)
    totals = lives.totals
    assert len(orders) == totals.orders
    assert sum(o.total_cents for o in orders.values()) == totals.cents
    assert sum(o.status == "cancelled" for o in orders.values()) == totals.statuses["cancelled"]
    assert sum(c.spent_cents for c in customers.values()) == totals.kept_cents
    assert sum(c.items for c in customers.values()) == totals.kept_items
    by_customer = defaultdict(int)
    for order in orders.values():
        by_customer[order.customer_id] += order.total_cents * (order.status != "cancelled")
    assert {c.customer_id: c.spent_cents for c in customers.values()} == by_customer


def test_the_edit_adds_a_column_and_makes_it_another_definition(folder):
    before = registry.load(folder / "projections")
    diff = project.edit_customers(folder)
    after = registry.load(folder / "projections")
    assert "+    second_order_at: Mapped[datetime | None]" in diff.splitlines()
    assert after["customers"].hash != before["customers"].hash
    assert after["orders"].hash == before["orders"].hash
    _, customers = folded(folder, [bought(2, "1", 1), bought(3, "2", 2), bought(4, "2", 5)])
    assert [c.second_order_at and c.second_order_at.day for c in customers.values()] == [None, 5]


def test_the_edit_refuses_a_file_it_was_not_written_for(folder):
    project.edit_customers(folder)
    with pytest.raises(MigratorError, match=r"customers\.py does not have the line"):
        project.edit_customers(folder)


def test_the_sample_is_found_in_the_package_before_the_checkout(folder, tmp_path, monkeypatch):
    package = tmp_path / "site" / "migrator"
    shutil.copytree(folder / "projections", package / "demo" / "sample" / "projections")
    (package / "demo" / "sample" / "migrations").mkdir()
    monkeypatch.setattr(project.migrator, "__file__", str(package / "__init__.py"))
    assert project.sample() == package / "demo" / "sample"
    shutil.rmtree(package / "demo")
    with pytest.raises(MigratorError, match="no sample project"):
        project.sample()


def test_nothing_of_the_users_environment_reaches_the_demos_settings(folder, monkeypatch):
    theirs = {
        "MIGRATOR_DATABASE_URL": "postgresql://them@production/shop",
        "MIGRATOR_DATABASE__LOCK_TIMEOUT_MS": "1",
        "MIGRATOR_KAFKA_SECURITY_PROTOCOL": "ssl",
        "DATABASE_URL": "postgresql://them@production/shop",
        "PGHOSTADDR": "192.0.2.1",
        "PGOPTIONS": "-c search_path=theirs",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "migrator.toml").write_text("[database]\nlock_timeout_ms = 2\n")
    monkeypatch.chdir(folder / "elsewhere")
    with project.alone():
        loaded = project.load(
            folder, database_url="postgresql://us@127.0.0.1:1/demo", bootstrap_servers="127.0.0.1:2"
        )
        assert not theirs.keys() & os.environ.keys()
    assert loaded.conninfo == "postgresql://us@127.0.0.1:1/demo"
    assert loaded.kafka_config == {"bootstrap.servers": "127.0.0.1:2"}
    assert loaded.database.lock_timeout_ms == settings.Database().lock_timeout_ms
    assert loaded.projections_dir == folder / "projections"
    assert theirs.items() <= os.environ.items()


def test_an_envelope_is_what_the_docs_say(folder):
    (record,) = records([bought(2, "00001", 1, 1177)])
    assert record.key == "00001"
    assert json.loads(record.value) == {
        "type": "OrderPlaced",
        "id": "2/1",
        "at": "1997-01-01T00:00:00Z",
        "data": {
            "order_id": "2",
            "customer_id": "00001",
            "items": 1,
            "total_cents": 1177,
            "placed_at": "1997-01-01T00:00:00Z",
        },
    }
