"""The main job: replay a topic into a fresh table, check it, make it live."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres import ledger
from migrator.projections import build as builds
from migrator.projections.rebuild import Options, plan, rebuild

ORDERS = """
    from migrator import Event, Meta, Projection, Tombstone, check, on
    from sqlalchemy import BigInteger, select
    from sqlalchemy.orm import Mapped, mapped_column


    class OrderPlaced(Event):
        customer_id: str
        total_cents: int


    class OrderShipped(Event):
        carrier: str


    class OrderDeleted(Event):
        pass


    class Order(Projection, topic="{topic}"):
        __tablename__ = "orders"
        ignores = ("OrderSeen",)

        order_id: Mapped[str] = mapped_column(primary_key=True)
        customer_id: Mapped[str] = mapped_column(index=True)
        status: Mapped[str]
        total_cents: Mapped[int] = mapped_column(BigInteger)
        carrier: Mapped[str | None]

        @on(OrderPlaced)
        def placed(self, event: OrderPlaced) -> None:
            self.status = "placed"
            self.customer_id, self.total_cents = event.customer_id, event.total_cents

        @on(OrderShipped)
        def shipped(self, event: OrderShipped, meta: Meta) -> None:
            self.status, self.carrier = "shipped", event.carrier

        @on(OrderDeleted)
        def deleted(self, event: OrderDeleted) -> None:
            self.delete()

        @check
        def totals_are_positive(cls):
            return select(cls).where(cls.total_cents < 0)
"""


def event(type_, **data):
    return {"type": type_, "id": "e", "data": data}


def placed(number, total=100):
    return (f"o{number}", event("OrderPlaced", customer_id=f"c{number % 7}", total_cents=total))


@pytest.fixture
def project(tmp_path, make_settings, topic):
    """A project with an orders projection over a topic of its own."""
    name = topic("orders")
    write(tmp_path, ORDERS.format(topic=name))
    settings = make_settings(tmp_path)
    object.__setattr__(settings, "topic_name", name)
    return settings


def write(root: Path, source: str, file: str = "orders.py") -> None:
    folder = root / "projections"
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(textwrap.dedent(source))


def test_a_first_rebuild_makes_the_folded_rows_live(project, produce, db):
    produce(project.topic_name, [placed(n) for n in range(100)])
    produce(project.topic_name, [(f"o{n}", event("OrderShipped", carrier="dhl")) for n in range(10)])
    produce(project.topic_name, [("o99", event("OrderDeleted")), ("o98", None)])
    produce(project.topic_name, [("o1", event("OrderSeen"))])
    report = rebuild(project, ["orders"])
    assert report.swapped is not None
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (98,)
    assert db.execute("SELECT count(*) FROM orders WHERE carrier = 'dhl'").fetchone() == (10,)
    live = builds.find(db, "orders", ["live"])
    assert [b.rows for b in live] == [98]
    assert [e.act for e in ledger.entries(db)] == ["cut-over"]
