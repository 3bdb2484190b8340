"""Made-up order lives: exact in number, valid in order, the same for the same seed."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.demo.generate import OrderLives
from migrator.demo.records import records

LIVES = {
    ("OrderPaid", "OrderShipped"),
    ("OrderPaid", "OrderCancelled"),
    ("OrderCancelled",),
}


def lives_of(events):
    lives = defaultdict(list)
    for event in events:
        lives[event.data["order_id"]].append(event)
    return lives


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 3000), seed=st.integers())
def test_there_are_exactly_as_many_events_as_asked_for(count, seed):
    lives = OrderLives(count, seed)
    assert len(list(lives)) == count
    assert lives.totals.events == count


def test_the_same_seed_makes_the_same_records():
    assert list(records(OrderLives(2000, 7))) == list(records(OrderLives(2000, 7)))
    assert list(records(OrderLives(2000, 7))) != list(records(OrderLives(2000, 8)))


@pytest.mark.parametrize("seed", range(5))
def test_every_order_lives_in_a_valid_sequence(seed):
    for life in lives_of(OrderLives(5000, seed)).values():
        assert [event.number for event in life] == [*range(1, len(life) + 1)]
        assert [event.at for event in life] == sorted(event.at for event in life)
        assert len({event.customer_id for event in life}) == 1
        types = [event.type for event in life]
        lines = types.count("OrderLineAdded")
        end = tuple(types[1 + lines :])
        assert types[: 1 + lines] == ["OrderPlaced", *["OrderLineAdded"] * lines]
        assert any(end == whole[: len(end)] for whole in LIVES)


def test_lives_go_on_beside_each_other():
    ids = [event.data["order_id"] for event in OrderLives(1000)]
    assert sum(a != b for a, b in pairwise(ids)) > 900


def test_ids_of_events_are_unique():
    values = [value for _, value in records(OrderLives(3000))]
    assert len(set(values)) == 3000


def test_no_made_up_customer_or_order_can_be_one_of_the_log():
    for event in OrderLives(3000):
        assert not event.customer_id.isdigit()
        assert not event.data["order_id"].isdigit()


def test_totals_are_what_the_events_say():
    """Counted here once more, from the events themselves."""
    drawn = OrderLives(20_000)
    lives = lives_of(drawn)
    statuses, items, cents, kept = Counter(), 0, 0, 0
    status_of = {
        "OrderPlaced": "placed",
        "OrderLineAdded": "placed",
        "OrderPaid": "paid",
        "OrderShipped": "shipped",
        "OrderCancelled": "cancelled",
    }
    for life in lives.values():
        status = status_of[life[-1].type]
        statuses[status] += 1
        lines = [event.data for event in life if event.type == "OrderLineAdded"]
        items += sum(line["items"] for line in lines)
        order_cents = sum(line["total_cents"] for line in lines)
        cents += order_cents
        kept += 0 if status == "cancelled" else order_cents
    totals = drawn.totals
    assert +totals.statuses == statuses
    assert (totals.orders, totals.items, totals.cents) == (len(lives), items, cents)
    assert totals.kept_cents == kept
    assert set(statuses) == {"placed", "paid", "shipped", "cancelled"}


def test_a_cancellation_takes_back_what_the_order_had_come_to():
    for life in lives_of(OrderLives(5000)).values():
        if life[-1].type == "OrderCancelled":
            lines = [event.data for event in life if event.type == "OrderLineAdded"]
            assert life[-1].data["items"] == sum(line["items"] for line in lines)
            assert life[-1].data["total_cents"] == sum(line["total_cents"] for line in lines)
