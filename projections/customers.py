"""One row per customer, folded from the events of the customer's orders."""

from datetime import datetime

from sqlalchemy import BigInteger, Select, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Projection, check, on
from projections.orders import OrderCancelled, OrderLineAdded, OrderPlaced


class Customer(Projection, topic="orders"):
    """One row per customer, which is the topic's key.

    `orders` counts all that were placed; `items` and `spent_cents` leave out the cancelled ones.
    """

    __tablename__ = "customers"
    ignores = ("OrderPaid", "OrderShipped")

    customer_id: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)
    items: Mapped[int] = mapped_column(default=0)
    spent_cents: Mapped[int] = mapped_column(BigInteger, default=0)
    first_order_at: Mapped[datetime]
    last_order_at: Mapped[datetime]

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced) -> None:
        self.orders += 1
        self.items += event.items
        self.spent_cents += event.total_cents
        if self.orders == 1:
            self.first_order_at = event.placed_at
        self.last_order_at = event.placed_at

    @on(OrderLineAdded)
    def line_added(self, event: OrderLineAdded) -> None:
        self.items += event.items
        self.spent_cents += event.total_cents

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled) -> None:
        self.items -= event.items
        self.spent_cents -= event.total_cents

    @check
    def nothing_is_negative(cls) -> Select:
        return select(cls).where(or_(cls.items < 0, cls.spent_cents < 0))

    @check
    def the_last_order_follows_the_first(cls) -> Select:
        return select(cls).where(cls.last_order_at < cls.first_order_at)
