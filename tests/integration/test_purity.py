"""The checks of the handlers themselves: the same rows again, and the same rows by both engines."""

from __future__ import annotations

import pytest

from migrator.errors import Refused
from migrator.projections.rebuild import Options, rebuild
from tests.projects import edit, event, placed, states

pytestmark = pytest.mark.usefixtures("in_process")

TWICE = "a sample folds twice to the same rows"
AGREE = "bulk and live engine agree on a sample"
PLANS = "plans can be made"


def results(report):
    return {r.check: (r.verdict, r.found) for r in report.projections[0].results}


def refused(project):
    with pytest.raises(Refused) as caught:
        rebuild(project.settings, ["orders"], Options(cut_over=False))
    return {r["check"]: r["found"] for r in caught.value.data["report"] if r["verdict"] == "failed"}


def test_pure_handlers_pass_and_the_sample_is_told(project, produce):
    produce(project.topic, [placed(n) for n in range(700)], partition=2)
    produce(project.topic, [("o1", event("OrderDeleted")), placed(1, 5)], partition=2)
    seen = results(rebuild(project.settings, ["orders"]))
    assert seen[TWICE] == ("passed", "the first 500 events of partition 2")
    assert seen[AGREE] == ("passed", "the first 500 events of partition 2, 500 rows")
    assert seen[PLANS] == ("passed", "statistics of 5 columns, 700 rows expected")


@pytest.mark.parametrize(
    ("preamble", "value"),
    [
        ("from random import random", "str(random())"),
        ("from time import time_ns", "str(time_ns())"),
        ("from uuid import uuid4", "str(uuid4())"),
        ("SEEN = []", "str(SEEN.append(1) or len(SEEN))"),
    ],
    ids=["chance", "a clock", "an id", "a variable of the module"],
)
def test_a_handler_that_is_not_pure_is_found_out(project, produce, db, preamble, value):
    edit(project, "from migrator import", f"{preamble}\nfrom migrator import")
    edit(
        project,
        "self.customer_id, self.total_cents = event.customer_id,",
        f"self.customer_id, self.total_cents = {value},",
    )
    produce(project.topic, [placed(n) for n in range(3)], partition=0)
    found = refused(project)
    assert list(found) == [TWICE]
    assert "customer_id of key 'o0' was" in found[TWICE]
    assert states(db) == {1: "failed"}


def test_an_event_that_folds_only_now_and_then_is_found_out(project, produce):
    edit(project, "from migrator import", "SEEN = []\nfrom migrator import")
    edit(
        project,
        'self.status = "placed"',
        'self.status = "placed"\n        SEEN.append(1)\n        if len(SEEN) % 4 == 0:\n            raise ValueError',
    )
    produce(project.topic, [placed(n) for n in range(3)], partition=0)
    with pytest.raises(Refused) as caught:
        rebuild(project.settings, ["orders"], Options(cut_over=False, quarantine=5))
    (found,) = [r for r in caught.value.data["report"] if r["check"] == TWICE]
    assert found["verdict"] == "failed"


def test_a_value_that_its_column_rounds_lets_the_engines_disagree(project, produce):
    """Bulk rounds once, at the end; the live engine with every batch."""
    edit(
        project,
        "from sqlalchemy import BigInteger, select",
        "from decimal import Decimal\nfrom sqlalchemy import BigInteger, Numeric, select",
    )
    edit(
        project,
        "total_cents: Mapped[int] = mapped_column(BigInteger)",
        "total_cents: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=Decimal(0))",
    )
    edit(
        project,
        "event.customer_id, event.total_cents",
        'event.customer_id, self.total_cents + Decimal("0.0013")',
    )
    produce(project.topic, [placed(1) for _ in range(100)], partition=0)
    found = refused(project)
    assert list(found) == [AGREE]
    assert "total_cents of key o1 is '0.12' by the live engine, and '0.13' by the" in found[AGREE]


def test_what_is_in_quarantine_disturbs_neither(project, produce):
    edit(
        project,
        'self.status = "placed"',
        'self.status = "placed"\n        if event.total_cents == 13:\n            raise ValueError',
    )
    produce(project.topic, [placed(1), placed(2, 13), ("o3", b"\xff")], partition=0)
    seen = results(rebuild(project.settings, ["orders"], Options(quarantine=5)))
    assert (seen[TWICE][0], seen[AGREE][0]) == ("passed", "passed")


def test_a_row_that_is_whole_only_after_its_last_event_is_no_disagreement(project, produce):
    produce(
        project.topic,
        [("o1", event("OrderShipped", carrier="UPS")), *[placed(2)] * 20, placed(1)],
        partition=0,
    )
    seen = results(rebuild(project.settings, ["orders"]))
    assert seen[AGREE][0] == "passed"


def test_an_empty_topic_skips_them(project, produce):
    seen = results(rebuild(project.settings, ["orders"], Options(allow=frozenset({"empty"}))))
    assert (seen[TWICE][0], seen[AGREE][0], seen[PLANS][0]) == ("skipped", "skipped", "passed")


def test_a_column_without_statistics_fails(project, produce, db, monkeypatch):
    from migrator.projections import build as builds

    monkeypatch.setattr(builds, "vacuum", lambda _conn, _build: None)
    produce(project.topic, [placed(1)])
    assert refused(project)[PLANS].startswith("no statistics of order_id, customer_id")
