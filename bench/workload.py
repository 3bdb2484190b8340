"""A deterministic log of order events and the rows that it must fold into.

By default 2,000,000 events of about 220 bytes, 400,000 orders, 4 partitions, keyed by order; orders
overlap in time, as in a shop, and every order's own events are in order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

EVENTS_PER_ORDER = 5
OPEN_ORDERS = 1000
CURRENCIES = ("EUR", "USD", "GBP", "SEK")


class Row(NamedTuple):
    """What an order's events fold into; times are ISO 8601."""

    order_id: str
    customer_id: str
    status: str
    currency: str
    total_cents: int
    lines: int
    placed_at: str
    paid_at: str
    shipped_at: str | None
    version: int


class _Order:
    __slots__ = ("id", "rng", "row", "steps")

    def __init__(self, number: int, clock: int, rng: random.Random) -> None:
        self.id = f"{rng.getrandbits(64):016x}-{number:08x}"
        cancelled = rng.random() < 0.1
        at = f"2026-01-{1 + clock // 86400 % 28:02d}T{clock // 3600 % 24:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}.000Z"
        price = rng.randrange(99, 50_000)
        customer = f"cust-{rng.randrange(90_000_000):08d}"
        currency = CURRENCIES[rng.randrange(4)]
        placed = (
            f'"order_id":"{self.id}","customer_id":"{customer}","currency":"{currency}",'
            f'"total_cents":{price * 2},"placed_at":"{at}"'
        )
        self.steps = [
            ("OrderPlaced", placed),
            ("OrderLineAdded", self._line(rng, price)),
            ("OrderLineAdded", self._line(rng, price)),
            ("OrderPaid", f'"order_id":"{self.id}","paid_at":"{at}","method":"card"'),
            ("OrderCancelled", f'"order_id":"{self.id}","reason":"customer_request"')
            if cancelled
            else ("OrderShipped", f'"order_id":"{self.id}","shipped_at":"{at}","carrier":"dhl"'),
        ]
        self.steps.reverse()
        self.row = Row(
            self.id,
            customer,
            "cancelled" if cancelled else "shipped",
            currency,
            price * 2,
            2,
            at,
            at,
            None if cancelled else at,
            EVENTS_PER_ORDER,
        )

    def _line(self, rng: random.Random, price: int) -> str:
        return (
            f'"order_id":"{self.id}","sku":"SKU-{rng.randrange(99_999):06d}",'
            f'"quantity":1,"price_cents":{price}'
        )


def events(count: int, *, seed: int = 7) -> Iterator[tuple[str, bytes, Row | None]]:
    """Yield `count` events as (key, value, the finished order's row or None)."""
    rng = random.Random(seed)
    orders, number, clock = [], 0, 0
    total = count // EVENTS_PER_ORDER
    while orders or number < total:
        while number < total and len(orders) < OPEN_ORDERS:
            orders.append(_Order(number, clock, rng))
            number += 1
        at = rng.randrange(len(orders))
        order = orders[at]
        kind, data = order.steps.pop()
        clock += 1
        value = f'{{"type":"{kind}","id":"{rng.getrandbits(128):032x}","data":{{{data}}}}}'
        if order.steps:
            yield order.id, value.encode(), None
        else:
            orders[at] = orders[-1]
            orders.pop()
            yield order.id, value.encode(), order.row
