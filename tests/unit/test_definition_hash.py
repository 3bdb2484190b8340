"""A definition's hash changes with what it does, and with nothing else."""

from __future__ import annotations

import sys
import textwrap

import pytest

from migrator.errors import UsageError
from migrator.projections import registry

EVENTS = """
    from migrator import Event

    class Placed(Event):
        total: int

    class Seen(Event):
        at: str
"""
ORDERS = """
    from migrator import Projection, check, on
    from projections.events import Placed, Seen
    from projections import money
    from sqlalchemy import select
    from sqlalchemy.orm import Mapped, mapped_column

    LIMIT = 100
    UNUSED = 1

    def capped(total: int) -> int:
        return min(total, LIMIT)

    class Order(Projection, topic="orders"):
        __tablename__ = "orders"
        order_id: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int]

        @on(Placed)
        def placed(self, event: Placed) -> None:
            self.total = money.rounded(capped(event.total))

        @check
        def positive(cls):
            return select(cls).where(cls.total < 0)

    class Other(Projection, topic="orders"):
        __tablename__ = "others"
        order_id: Mapped[str] = mapped_column(primary_key=True)

        @on(Seen)
        def seen(self, event: Seen) -> None: ...
"""
MONEY = """
    def rounded(cents: int) -> int:
        return cents // UNIT

    UNIT = 1
"""


@pytest.fixture
def hashes(tmp_path):
    """`hashes(file, old, new)`: both projections' hashes after an edit of one file."""
    folder = tmp_path / "projections"
    folder.mkdir()
    sources = {"events.py": EVENTS, "orders.py": ORDERS, "money.py": MONEY}

    def found(file="orders.py", old="", new=""):
        for name, source in sources.items():
            text = textwrap.dedent(source)
            if name == file:
                assert old in text
                text = text.replace(old, new)
            (folder / name).write_text(text)
        return {name: each.hash for name, each in registry.load(folder).items()}

    yield found
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("orders.py", "capped(event.total)", "capped(event.total) + 1"),
        ("orders.py", "total: Mapped[int]\n", "total: Mapped[int] = mapped_column(index=True)\n"),
        ("orders.py", "LIMIT = 100", "LIMIT = 101"),
        ("orders.py", "min(total", "max(total"),
        ("events.py", "total: int", "total: float"),
        ("money.py", "cents // UNIT", "cents"),
        ("money.py", "UNIT = 1", "UNIT = 2"),
        ("orders.py", 'Order(Projection, topic="orders")', 'Order(Projection, topic="x")'),
    ],
)
def test_a_change_of_what_it_does_changes_its_hash_alone(hashes, file, old, new):
    before, after = hashes(), hashes(file, old, new)
    assert before["orders"] != after["orders"]
    assert before["others"] == after["others"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("orders.py", "LIMIT = 100", "# a licence\nLIMIT =  100"),
        ("orders.py", "return min", '"""Capped."""\n    return min'),
        ("orders.py", "UNUSED = 1", "UNUSED = 2"),
        ("orders.py", "cls.total < 0", "cls.total <= 0"),
        ("events.py", "at: str", "at: int"),
        ("orders.py", "(self, event: Placed)", "(\n        self, event: Placed,\n    )"),
    ],
)
def test_a_change_of_how_it_is_written_does_not(hashes, file, old, new):
    assert hashes()["orders"] == hashes(file, old, new)["orders"]


def test_the_hash_is_the_same_in_every_python_version(hashes):
    assert hashes()["others"] == (
        "3b25b038b02debbff49cb44e75edea1cca030b6616f87f631bbf708ccb177c12"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def (", "line 1"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        ("\n\n1 / 0", "line 3: ZeroDivisionError"),
    ],
)
def test_a_file_that_does_not_import_is_named_with_its_line(tmp_path, source, said):
    folder = tmp_path / "broken_projections"
    folder.mkdir()
    (folder / "broken.py").write_text(source)
    with pytest.raises(UsageError, match=r"broken\.py does not import") as caught:
        registry.load(folder)
    assert said in caught.value.found


def test_what_is_installed_in_the_projects_own_folder_does_not_count(tmp_path, monkeypatch, hashes):
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.syspath_prepend(installed)
    (installed / "rounding_of_others.py").write_text("def capped(total): return total\n")
    use = (
        "orders.py",
        "def capped(total: int) -> int:",
        "from rounding_of_others import capped\ndef c():",
    )
    before = hashes(*use)
    (installed / "rounding_of_others.py").write_text("def capped(total): return total + 1\n")
    sys.modules.pop("rounding_of_others")
    assert hashes(*use) == before


def test_two_projections_of_one_table_are_refused(hashes):
    with pytest.raises(UsageError, match="share the table orders"):
        hashes("orders.py", '"others"', '"orders"')


def test_a_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        registry.load(tmp_path / "nowhere")
