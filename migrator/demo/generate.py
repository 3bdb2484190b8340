"""Make up whole order lives, as many events as are wanted: placed, lines, paid, shipped, cancelled.

Pure: the same seed gives the same events. What they come to is added up here, from what was drawn and
not by the projections' code, so that the one can be checked against the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from migrator.demo.records import Made

SEED = 1997
PREFIX = "G"  # no id of the CDNOW log, which has digits alone, begins with it
EVENTS_PER_CUSTOMER = 40
OPEN_ORDERS = 500  # lives that go on beside each other
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
# How a life ends, and how often in a hundred.
ENDS = {
    ("OrderPaid", "OrderShipped"): 90,
    ("OrderPaid", "OrderCancelled"): 4,
    ("OrderCancelled",): 6,
}


@dataclass
class Totals:
    """What some events come to; `kept_*` is without cancelled orders."""

    events: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    orders_of: Counter[str] = field(default_factory=Counter)
    items: int = 0
    cents: int = 0
    cancelled_items: int = 0
    cancelled_cents: int = 0

    @property
    def orders(self) -> int:
        return self.statuses.total()

    @property
    def kept_items(self) -> int:
        return self.items - self.cancelled_items

    @property
    def kept_cents(self) -> int:
        return self.cents - self.cancelled_cents

    @property
    def returning(self) -> int:
        """Customers with more than one order."""
        return sum(count > 1 for count in self.orders_of.values())


@dataclass
class _Order:
    """An order that is still open."""

    id: str
    customer_id: str
    plan: list[str]
    status: str = ""
    items: int = 0
    cents: int = 0
    told: int = 0


class OrderLives:
    """Exactly `count` events in the log's order; `totals` says what those drawn so far come to.

    A life that is still open when the count is reached stays open, as in any real log.
    """

    def __init__(self, count: int, seed: int = SEED) -> None:
        self.totals = Totals()
        self._count = count
        self._begun = 0
        self._customers = max(1, count // EVENTS_PER_CUSTOMER)
        self._random = Random(seed)  # noqa: S311 - made-up orders are no secret

    def __iter__(self) -> Iterator[Made]:
        opened: list[_Order] = []
        now = FIRST
        for _ in range(self._count):
            now += timedelta(milliseconds=self._random.randrange(1, 2000))
            if len(opened) < OPEN_ORDERS:
                opened.append(self._new_order())
            place = self._random.randrange(len(opened))
            order = opened[place]
            yield self._next_of(order, now)
            if order.told == len(order.plan):
                opened[place] = opened[-1]
                opened.pop()

    def _new_order(self) -> _Order:
        self._begun += 1
        customer = self._random.randrange(self._customers)
        lines = ["OrderLineAdded"] * self._random.randrange(1, 5)
        (end,) = self._random.choices(list(ENDS), list(ENDS.values()))
        plan = ["OrderPlaced", *lines, *end]
        return _Order(f"{PREFIX}{self._begun}", f"{PREFIX}{customer:06}", plan)

    def _next_of(self, order: _Order, now: datetime) -> Made:
        event_type = order.plan[order.told]
        order.told += 1
        self.totals.events += 1
        data = {"order_id": order.id, **self._data(event_type, order, now)}
        return Made(event_type, order.customer_id, order.told, now, data)

    def _data(self, event_type: str, order: _Order, now: datetime) -> dict[str, Any]:
        match event_type:
            case "OrderPlaced":
                self.totals.orders_of[order.customer_id] += 1
                self._move(order, "placed")
                empty = {"customer_id": order.customer_id, "items": 0, "total_cents": 0}
                return {**empty, "placed_at": now}
            case "OrderLineAdded":
                return self._line(order)
            case "OrderPaid":
                self._move(order, "paid")
                return {"paid_at": now}
            case "OrderShipped":
                self._move(order, "shipped")
                return {"shipped_at": now}
        self._move(order, "cancelled")
        self.totals.cancelled_items += order.items
        self.totals.cancelled_cents += order.cents
        return {"items": order.items, "total_cents": order.cents, "cancelled_at": now}

    def _line(self, order: _Order) -> dict[str, Any]:
        items = self._random.randrange(1, 4)
        cents = items * self._random.randrange(199, 4999)
        order.items += items
        order.cents += cents
        self.totals.items += items
        self.totals.cents += cents
        return {"items": items, "total_cents": cents}

    def _move(self, order: _Order, status: str) -> None:
        if order.status:
            self.totals.statuses[order.status] -= 1
        self.totals.statuses[status] += 1
        order.status = status
