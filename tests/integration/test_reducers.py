"""Projections whose keys spread over partitions: folded apart, merged in PostgreSQL."""

from __future__ import annotations

import pytest

from migrator.errors import MigratorError, Refused
from migrator.postgres import ledger
from migrator.projections import build as builds
from migrator.projections.rebuild import Options, plan, rebuild
from tests.projects import event, states, write

CUSTOMERS = """
    from sqlalchemy import BigInteger
    from sqlalchemy.orm import Mapped, mapped_column

    from migrator import Projection, check, count, latest, maximum, minimum, total
    from projections.orders import OrderPlaced, OrderShipped


    class Customer(Projection, topic="{topic}", key=lambda event: event.customer_id):
        __tablename__ = "customers"
        ignores = ("OrderShipped", "Tombstone")
        customer_id: Mapped[str] = mapped_column(primary_key=True)
        orders: Mapped[int] = count(OrderPlaced)
        spent: Mapped[int] = total(OrderPlaced, lambda e: e.total_cents, type_=BigInteger, index=True)
        least: Mapped[int] = minimum(OrderPlaced, lambda e: e.total_cents)
        most: Mapped[int] = maximum(OrderPlaced, lambda e: e.total_cents)
        last: Mapped[int] = latest(
            OrderPlaced, lambda e: e.total_cents, by=lambda e: e.total_cents % 10
        )
"""


@pytest.fixture
def customers(project):
    write(project.root, CUSTOMERS.format(topic=project.topic), "customers.py")
    return project


def placed(number: int, customer: str, cents: int):
    return f"o{number}", event("OrderPlaced", customer_id=customer, total_cents=cents)


def test_a_key_that_spreads_over_partitions_is_reduced_to_one_row(customers, produce, db):
    for partition, cents in enumerate((19, 25, 39)):
        produce(customers.topic, [placed(partition, "c", cents), ("o", None)], partition=partition)
    produce(customers.topic, [placed(9, "d", 4)], partition=3)
    report = rebuild(customers.settings, ["customers"])
    assert report.projections[0].rows == 2
    assert db.execute("SELECT * FROM customers ORDER BY 1").fetchall() == [
        # 19 and 39 have the same by=: the higher partition's counts.
        ("c", 3, 83, 19, 39, 39),
        ("d", 1, 4, 4, 4, 4),
    ]
    names = "SELECT indexname FROM pg_indexes WHERE tablename = 'customers' ORDER BY 1"
    assert db.execute(names).fetchall() == [("customers_pkey",), ("customers_spent_idx",)]
    # What `latest` was made of is kept, a row a key, for the events that are to come.
    left = "SELECT relname FROM pg_class WHERE relnamespace = 'migrator_build_1'::regnamespace"
    assert sorted(db.execute(left).fetchall()) == [("migrator_state",), ("migrator_state_pkey",)]
    assert db.execute("SELECT count(*) FROM migrator_build_1.migrator_state").fetchone() == (2,)


def test_nothing_is_kept_beside_columns_that_can_be_added_to(customers, produce, db):
    file = customers.root / "projections" / "customers.py"
    source = file.read_text()
    file.write_text(source[: source.index("        last:".strip())].rstrip() + "\n")
    produce(customers.topic, [placed(1, "c", 5)], partition=0)
    rebuild(customers.settings, ["customers"])
    left = "SELECT relname FROM pg_class WHERE relnamespace = 'migrator_build_1'::regnamespace"
    assert db.execute(left).fetchall() == []


def test_reducers_and_handlers_share_a_pass(customers, produce, db):
    produce(customers.topic, [placed(1, "c", 5)], partition=0)
    produce(customers.topic, [placed(2, "c", 6)], partition=1)
    rebuild(customers.settings, ["orders", "customers"])
    assert db.execute("SELECT orders, spent FROM customers").fetchone() == (2, 11)
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_records_without_a_key_are_reduced_where_the_event_gives_it(customers, produce, db):
    produce(customers.topic, [(None, placed(1, "c", 5)[1]) for _ in range(20)])
    rebuild(customers.settings, ["customers"])
    assert db.execute("SELECT orders FROM customers").fetchone() == (20,)


def test_a_records_own_key_is_reduced_even_where_it_lies_in_two_partitions(customers, produce, db):
    file = customers.root / "projections" / "customers.py"
    file.write_text(file.read_text().replace(", key=lambda event: event.customer_id", ""))
    for partition in range(2):
        produce(customers.topic, [placed(1, "c", 5)], partition=partition)
    rebuild(customers.settings, ["customers"])
    assert db.execute("SELECT customer_id, spent FROM customers").fetchall() == [("o1", 10)]


def test_an_empty_topic_makes_an_empty_table(customers, db):
    rebuild(customers.settings, ["customers"], Options(allow=frozenset({"empty"})))
    assert db.execute("SELECT count(*) FROM customers").fetchone() == (0,)


def test_texts_are_merged_in_the_order_in_which_they_were_folded_whatever_the_collation(
    customers, produce, db
):
    write(
        customers.root,
        f"""
        from sqlalchemy import Text
        from sqlalchemy.orm import Mapped, mapped_column

        from migrator import Projection, minimum
        from projections.orders import OrderPlaced


        class All(Projection, topic="{customers.topic}", key=lambda event: 1):
            __tablename__ = "all_customers"
            key: Mapped[int] = mapped_column(primary_key=True)
            least: Mapped[str] = minimum(
                OrderPlaced, lambda e: e.customer_id, type_=Text(collation="en-x-icu")
            )
        """,
        "all.py",
    )
    for partition, customer in enumerate("aB"):
        produce(customers.topic, [placed(1, customer, 5)], partition=partition)
    rebuild(customers.settings, ["all_customers"])
    assert db.execute("SELECT least FROM all_customers").fetchone() == ("B",)


def test_a_merge_that_a_column_does_not_hold_is_refused_and_live_stays(customers, produce, db):
    file = customers.root / "projections" / "customers.py"
    file.write_text(file.read_text().replace("type_=BigInteger, ", ""))
    for partition in range(2):
        produce(customers.topic, [placed(partition, "c", 2**31 - 1)], partition=partition)
    with pytest.raises(Refused, match="merged row of customers: integer out of range") as caught:
        rebuild(customers.settings, ["customers"])
    assert "BigInteger" in caught.value.next_step
    assert states(db) == {1: "failed"}


def test_a_row_without_a_value_for_a_not_null_column_is_explained(customers, produce, db):
    file = customers.root / "projections" / "customers.py"
    file.write_text(
        file.read_text().replace("by=lambda e: e.total_cents % 10", "by=lambda e: None")
    )
    produce(customers.topic, [placed(1, "c", 1)])
    with pytest.raises(Refused, match="a row of customers has no value for last"):
        rebuild(customers.settings, ["customers"])


def test_a_tombstone_stops_reducers_unless_it_is_ignored(customers, produce, db):
    file = customers.root / "projections" / "customers.py"
    file.write_text(file.read_text().replace(', "Tombstone"', ""))
    produce(customers.topic, [("o1", None)], partition=2)
    with pytest.raises(MigratorError, match=r"a tombstone has no event.*partition 2, offset 0"):
        rebuild(customers.settings, ["customers"])


def test_a_dry_run_shows_the_merge(customers, produce, db):
    produce(customers.topic, [placed(1, "c", 1)])
    ledger.ensure(db)
    (planned,), _ = plan(customers.settings, ["customers"], Options())
    assert any("GROUP BY" in each for each in planned.statements)
    assert builds.find(db, "customers", builds.UNFINISHED) == []
