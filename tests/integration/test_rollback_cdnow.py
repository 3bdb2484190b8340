"""A rollback under traffic, on the demo's projections and its log of real orders: no event is missing."""

from __future__ import annotations

import pytest

from migrator.demo import download, facts, purchases, records
from migrator.demo.project import sample
from migrator.deploy import rollback
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.catch_up import catch_up
from migrator.projections.rebuild import rebuild

NAMES = ["customers", "orders"]
SPENT = "self.spent_cents += event.total_cents"


@pytest.mark.chaos
def test_after_a_rollback_under_traffic_every_fact_of_cdnow_holds(
    tmp_path, make_settings, topic, produce, db
):
    name = topic("orders")
    (tmp_path / "projections").mkdir()
    for file in NAMES:
        text = (sample() / "projections" / f"{file}.py").read_text()
        text = text.replace('topic="orders"', f'topic="{name}"')
        (tmp_path / "projections" / f"{file}.py").write_text(text)
    log = purchases.parse(download.purchase_log(lambda _said: None))
    events = list(records.records(map(records.placed, log)))
    half = len(events) // 2
    settings = make_settings(tmp_path)

    produce(name, events[:half])
    rebuild(settings, NAMES)
    edited = tmp_path / "projections" / "customers.py"
    old = edited.read_text()
    assert SPENT in old
    edited.write_text(old.replace(SPENT, f"{SPENT} + 1"))
    rebuild(settings, NAMES)
    produce(name, events[half:])
    for each in NAMES:  # as `migrator follow` does
        (live,) = builds.find(db, each, ["live"])
        definition = registry.load(settings.projections_dir)[each].definition
        assert catch_up(db, settings, live, definition, live.target) == len(events) - half

    edited.write_text(old)
    done = rollback.rollback(settings, rollback.plan(settings), reason="a test")
    assert done.swapped.caught_up == 2 * (len(events) - half)
    assert [fact for fact in facts.ask(db, facts.of_cdnow()) if not fact.ok] == []
