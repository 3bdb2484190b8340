"""One row per order, and the events of an order's life."""

from datetime import datetime

from sqlalchemy import BigInteger, Select, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, check, on


class OrderPlaced(Event):
    order_id: str
    customer_id: str
    items: int
    total_cents: int
    placed_at: datetime


class OrderLineAdded(Event):
    order_id: str
    items: int
    total_cents: int


class OrderPaid(Event):
    order_id: str
    paid_at: datetime


class OrderShipped(Event):
    order_id: str
    shipped_at: datetime


class OrderCancelled(Event):
    """Says what the order had come to: a row of customers does not know its orders."""

    order_id: str
    items: int
    total_cents: int
    cancelled_at: datetime


# The topic is keyed by customer, and an order has one customer: it never leaves its partition.
class Order(Projection, topic="orders", key=lambda event: event.order_id, co_partitioned=True):
    """One row per order. A cancelled one keeps what it had come to."""

    __tablename__ = "orders"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    items: Mapped[int]
    total_cents: Mapped[int] = mapped_column(BigInteger)
    placed_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]
    shipped_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced) -> None:
        self.customer_id, self.status = event.customer_id, "placed"
        self.items, self.total_cents = event.items, event.total_cents
        self.placed_at = event.placed_at

    @on(OrderLineAdded)
    def line_added(self, event: OrderLineAdded) -> None:
        self.items += event.items
        self.total_cents += event.total_cents

    @on(OrderPaid)
    def paid(self, event: OrderPaid) -> None:
        self.status, self.paid_at = "paid", event.paid_at

    @on(OrderShipped)
    def shipped(self, event: OrderShipped) -> None:
        self.status, self.shipped_at = "shipped", event.shipped_at

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled) -> None:
        self.status, self.cancelled_at = "cancelled", event.cancelled_at

    @check
    def nothing_is_negative(cls) -> Select:
        return select(cls).where(or_(cls.items < 0, cls.total_cents < 0))

    @check
    def only_paid_orders_are_shipped(cls) -> Select:
        return select(cls).where(cls.shipped_at.is_not(None), cls.paid_at.is_(None))
