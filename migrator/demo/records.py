"""What the demo writes to the topic: events of orders, keyed by customer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from migrator.demo.purchases import Purchase


class Made(NamedTuple):
    """An event before it is written; `number` is its place in its order's life, from 1."""

    type: str
    customer_id: str
    number: int
    at: datetime
    data: dict[str, Any]


class Record(NamedTuple):
    key: str
    value: bytes


def placed(purchase: Purchase) -> Made:
    """Tell a purchase as an event: the order's id is the purchase's line in the log."""
    data = {
        "order_id": str(purchase.line),
        "customer_id": purchase.customer_id,
        "items": purchase.items,
        "total_cents": purchase.total_cents,
        "placed_at": purchase.day,
    }
    return Made("OrderPlaced", purchase.customer_id, 1, purchase.day, data)


def records(events: Iterable[Made]) -> Iterator[Record]:
    """Put events into envelopes as `[topics]` reads them by default; ids are the same every time."""
    encode = msgspec.json.Encoder().encode
    for event in events:
        envelope = {
            "type": event.type,
            "id": f"{event.data['order_id']}/{event.number}",
            "at": event.at,
            "data": event.data,
        }
        yield Record(event.customer_id, encode(envelope))
