"""Small projects that tests rebuild."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

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


def unsampled(settings):
    """The settings with a preflight that looks at no event, so that the replay meets them all."""
    projections = settings.projections.model_copy(update={"sample_events": 0})
    return settings.model_copy(update={"projections": projections})


def write(root: Path, source: str, file: str = "orders.py") -> None:
    folder = root / "projections"
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(textwrap.dedent(source))


def edit(project, old: str, new: str) -> None:
    file = project.root / "projections" / "orders.py"
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new))


def remake(admin: AdminClient, topic: str, partitions: int) -> None:
    """Delete the topic and make it anew; the broker knows the new one when this returns.

    Until then it may take records into the old one, and lose them with it.
    """
    wanted = TopicCollection([topic])
    old = admin.describe_topics(wanted)[topic].result(30).topic_id
    admin.delete_topics([topic])[topic].result(30)
    new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
    admin.create_topics([new])[topic].result(30)
    deadline = time.monotonic() + 30
    while _id(admin, wanted, topic) in (str(old), ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _id(admin: AdminClient, wanted: TopicCollection, topic: str) -> str:
    try:
        return str(admin.describe_topics(wanted)[topic].result(30).topic_id)
    except KafkaException:
        return ""


def count(db, table: str = "orders") -> int:
    return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def states(db) -> dict[int, str]:
    return dict(db.execute("SELECT build, state FROM migrator.build ORDER BY build").fetchall())


def revision(project, number: str, revises: str | None, ddl: str, undo: str) -> None:
    """Write one revision with its rollback script."""
    folder = project.root / "migrations"
    for name in ("versions", "rollback"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "versions" / f"{number}_r.py").write_text(
        f'"""Revision {number}."""\nfrom alembic import op\n'
        f"revision = {number!r}\ndown_revision = {revises!r}\nphase = 'expand'\n\n"
        f"def upgrade() -> None:\n    op.execute({ddl!r})\n"
    )
    (folder / "rollback" / f"{number}.sql").write_text(undo)
