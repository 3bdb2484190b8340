"""The workload's projection: one row per order."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, on


class OrderPlaced(Event):
    customer_id: str
    currency: str
    total_cents: int
    placed_at: datetime


class OrderLineAdded(Event):
    quantity: int


class OrderPaid(Event):
    paid_at: datetime


class OrderShipped(Event):
    shipped_at: datetime


class OrderCancelled(Event):
    pass


class Order(Projection, topic="orders"):
    __tablename__ = "orders"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str]
    status: Mapped[str]
    currency: Mapped[str]
    total_cents: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[int] = mapped_column(default=0)
    placed_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]
    shipped_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=0)

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced) -> None:
        self.status, self.customer_id = "placed", event.customer_id
        self.currency, self.total_cents = event.currency, event.total_cents
        self.placed_at = event.placed_at
        self.version += 1

    @on(OrderLineAdded)
    def line_added(self, event: OrderLineAdded) -> None:
        self.lines += 1
        self.version += 1

    @on(OrderPaid)
    def paid(self, event: OrderPaid) -> None:
        self.status, self.paid_at = "paid", event.paid_at
        self.version += 1

    @on(OrderShipped)
    def shipped(self, event: OrderShipped) -> None:
        self.status, self.shipped_at = "shipped", event.shipped_at
        self.version += 1

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled) -> None:
        self.status = "cancelled"
        self.version += 1
