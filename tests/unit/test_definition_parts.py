"""What of a definition counts, part by part, and how a part that has changed is named."""

from __future__ import annotations

import sys
import textwrap

import pytest

from migrator.projections import registry
from migrator.projections.changes import differing

EVENTS = """
    from migrator import Event, upcast

    class Base(Event):
        at: str = ""

    class Placed(Base, version=2):
        total: int

    @upcast(Placed, from_version=1)
    def in_cents(payload: dict) -> dict:
        return {**payload, "total": payload["total"] * 100}
"""
MONEY = """
    def doubled(cents: int) -> int:
        return cents * 2
"""
ORDERS = """
    import enum
    import projections.money
    from migrator import Projection, check, on
    from projections.events import Placed
    from sqlalchemy import BigInteger, CheckConstraint, Index, select
    from sqlalchemy.orm import Mapped, mapped_column

    class Status(enum.Enum):
        new = "new"

    class Sent(Placed): ...

    def half(cents: int) -> int:
        return cents // 2

    class Audited:
        touched: Mapped[int] = mapped_column(default=0)

        @on(Placed)
        def placed(self, event: Placed) -> None:
            self.total = half(event.total)
            self.count()

        def count(self) -> None:
            from projections.money import doubled
            self.touched += doubled(1)

    class Order(
        Audited, Projection, topic="orders", key=lambda e: e.at, co_partitioned=True
    ):
        \"\"\"One row an order.\"\"\"
        __tablename__ = "orders"
        __table_args__ = (CheckConstraint("total > 0", name="some"),)
        ignores = ("Seen",)
        order_id: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int]
        status: Mapped["Status | None"]

        @check
        def positive(cls):
            return select(cls).where(cls.total < 0)
"""
FILES = {"events.py": EVENTS, "money.py": MONEY, "orders.py": ORDERS}


@pytest.fixture
def defined(tmp_path):
    """`defined(file, old, new)`: the projection after an edit of one file."""
    folder = tmp_path / "projections"
    folder.mkdir()

    def load(file="orders.py", old="", new=""):
        for name, source in FILES.items():
            text = textwrap.dedent(source)
            if name == file:
                assert old in text
                text = text.replace(old, new, 1)
            (folder / name).write_text(text)
        registered = registry.load(folder)["orders"]
        return registered.hash, registered.parts

    yield load
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("orders.py", "self.total = half", "self.total = 1 + half", ["class Audited changed"]),
        ("orders.py", "cents // 2", "cents // 3", ["function half changed"]),
        ("money.py", "cents * 2", "cents * 3", ["function doubled of money changed"]),
        ("events.py", "total: int", "total: float", ["event Placed of events changed"]),
        ("events.py", 'at: str = ""', 'at: str = "-"', ["event Base of events changed"]),
        ("events.py", "* 100", "* 1000", ["upcaster in_cents of events changed"]),
        ("orders.py", 'new = "new"', 'new, old = "new", "old"', ["class Status changed"]),
        (
            "orders.py",
            "total: Mapped[int]\n",
            "total: Mapped[int] = mapped_column(BigInteger)\n",
            ["column total changed"],
        ),
        (
            "orders.py",
            "total: Mapped[int]\n",
            "total: Mapped[int] = mapped_column(index=True)\n",
            ["column total changed", "index orders_total_idx added"],
        ),
        (
            "orders.py",
            "total > 0",
            "total > 10",
            ["__table_args__ changed", "constraint orders_some_check changed"],
        ),
        (
            "orders.py",
            "    status: Mapped",
            "    note: Mapped[str | None]\n    status: Mapped",
            ["column note added"],
        ),
        ("orders.py", "lambda e: e.at", "lambda e: e.at[0]", ["key= changed"]),
        ("orders.py", 'topic="orders"', 'topic="others"', ["topic= changed"]),
        ("orders.py", '("Seen",)', '("Seen", "Lost")', ["ignores changed"]),
        (
            "orders.py",
            "    @check",
            "    @on(Sent)\n    def x(self, event): ...\n\n    @check",
            ["event Sent added", "handler x added"],
        ),
        (
            "orders.py",
            "    Audited, Projection",
            "    Projection, Audited",
            ["base classes changed"],
        ),
    ],
)
def test_a_part_that_counts_changes_the_hash_and_is_named(defined, file, old, new, named):
    before, after = defined(), defined(file, old, new)
    assert before[0] != after[0]
    assert differing(before[1], after[1]) == named


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("orders.py", "self.count()", "self.count()  # and counted"),
        ("orders.py", "half(event.total)", "half(\n            event.total,\n        )"),
        ("orders.py", "One row an order.", "A row for each order."),
        ("events.py", "    total: int", '    """An order."""\n    total: int'),
        ("orders.py", "cls.total < 0", "cls.total <= 0"),
        ("orders.py", "@check\n    def positive", "@check\n    def all_positive"),
        ("events.py", "from migrator import Event", "import json\nfrom migrator import Event"),
    ],
)
def test_what_does_not_count_changes_neither_hash_nor_parts(defined, file, old, new):
    assert defined() == defined(file, old, new)
