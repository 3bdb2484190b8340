"""rebuild-projections --changed: exactly what changed, and why."""

from __future__ import annotations

import json

import pytest

from migrator.projections import changes
from migrator.projections.rebuild import Options, rebuild
from tests.projects import edit, placed, states, write

OTHER = """
    from migrator import Projection, on
    from projections.orders import OrderPlaced
    from sqlalchemy.orm import Mapped, mapped_column


    class Other(Projection, topic="{topic}"):
        __tablename__ = "others"
        ignores = ("OrderShipped", "OrderDeleted", "OrderSeen")
        order_id: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int]

        @on(OrderPlaced)
        def placed(self, event: OrderPlaced) -> None:
            self.total = event.total_cents
"""


@pytest.fixture
def two(project, produce):
    """Two projections, both live under their present definitions."""
    write(project.root, OTHER.format(topic=project.topic), "others.py")
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders", "others"])
    return project


def test_only_the_projection_that_changed_is_rebuilt(two, cli, db):
    edit(two, '"placed"', '"new"')
    result = cli("--json", "rebuild-projections", "--changed")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [p["projection"] for p in document["projections"]] == ["orders"]
    assert document["changes"] == [
        {"projection": "orders", "live": 1, "parts": ["handler placed changed"]}
    ]
    assert states(db) == {1: "archived", 2: "live", 3: "live"}


def test_an_event_class_changes_every_projection_that_folds_it(two):
    edit(two, "total_cents: int", "total_cents: float")
    assert [c.projection for c in changes.find(two.settings)] == ["orders", "others"]


def test_with_nothing_changed_no_topic_is_read(two, cli, db, monkeypatch):
    monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    edit(two, "@check", "# a comment\n    @check")
    for more in ([], ["--dry-run"]):
        result = cli("rebuild-projections", "--changed", *more)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Nothing has changed" in result.stdout
    assert json.loads(cli("--json", "rebuild-projections", "--changed").stdout) == {
        "projections": [],
        "changes": [],
    }
    assert states(db) == {1: "live", 2: "live"}


def test_what_is_not_live_yet_is_rebuilt_and_an_unfinished_build_goes_on(project, produce, cli, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    result = cli("rebuild-projections", "--changed")
    assert result.exit_code == 0
    assert "orders: not built yet" in result.stderr
    assert states(db) == {1: "live"}


def test_a_dry_run_says_which_and_why(two, cli, db):
    edit(
        two,
        "carrier: Mapped[str | None]",
        "carrier: Mapped[str | None] = mapped_column(index=True)",
    )
    result = cli("rebuild-projections", "--changed", "--dry-run")
    assert result.stdout.startswith(
        "orders: its definition has changed since build 1: "
        "column carrier changed, index orders_carrier_idx added\n"
    )
    assert states(db) == {1: "live", 2: "live"}


def test_a_build_of_an_older_release_has_changed_in_parts_unknown(two, db):
    db.execute("ALTER TABLE migrator.build DROP COLUMN definition_parts")
    edit(two, '"placed"', '"new"')
    (change,) = changes.find(two.settings)
    assert change.why.endswith("which part of it cannot be told")


def test_in_a_fresh_database_everything_is_to_be_built(project, db):
    assert [c.why for c in changes.find(project.settings)] == ["not built yet"]
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)
