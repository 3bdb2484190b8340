"""What a plan's hash is made of, and when a deployment may go on with what is to do now."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from migrator.deploy import plan
from migrator.deploy.plan import Plan, PlannedProjection, PlannedRevision, Standing

BEGUN = Plan(
    "expand",
    (PlannedRevision("0001", "notes", "a1"), PlannedRevision("0002", "", "a2")),
    (PlannedProjection("orders", "b1", "not built yet"),),
)
NOTHING = Standing({}, {})


def test_a_plan_survives_the_ledger():
    assert plan.from_json(json.loads(json.dumps(BEGUN.as_json()))) == BEGUN


@pytest.mark.parametrize(
    "other",
    [
        replace(BEGUN, phase="contract"),
        replace(BEGUN, revisions=BEGUN.revisions[:1]),
        replace(BEGUN, revisions=BEGUN.revisions[::-1]),
        replace(BEGUN, revisions=(PlannedRevision("0001", "notes", "a9"), BEGUN.revisions[1])),
        replace(BEGUN, projections=(PlannedProjection("orders", "b9", "not built yet"),)),
    ],
)
def test_what_would_be_done_otherwise_has_another_hash(other):
    assert other.hash != BEGUN.hash


def test_the_hash_is_of_what_is_done_not_of_words_about_it():
    said = PlannedProjection("orders", "b1", "its definition has changed")
    renamed = PlannedRevision("0001", "other words", "a1")
    other = replace(BEGUN, revisions=(renamed, BEGUN.revisions[1]), projections=(said,))
    assert other.hash == BEGUN.hash


def test_a_deployment_goes_on_with_what_is_left():
    left = replace(BEGUN, revisions=BEGUN.revisions[1:], projections=())
    done = Standing({"0001": "a1"}, {"orders": "b1"})
    assert plan.differences(BEGUN, left, done) == []
    assert plan.differences(BEGUN, BEGUN, NOTHING) == []


@pytest.mark.parametrize(
    ("now", "done", "said"),
    [
        (replace(BEGUN, revisions=()), Standing({"0001": "a1"}, {}), "revision 0002 is not to be"),
        (replace(BEGUN, revisions=()), Standing({"0001": "x", "0002": "a2"}, {}), "revision 0001"),
        (
            replace(BEGUN, projections=(PlannedProjection("orders", "b2", ""),)),
            NOTHING,
            "projection orders has changed since",
        ),
        (
            replace(BEGUN, revisions=(*BEGUN.revisions, PlannedRevision("0003", "", "a3"))),
            NOTHING,
            "revision 0003 is to be deployed, too",
        ),
        (
            replace(BEGUN, projections=()),
            Standing({}, {"orders": "b0"}),
            "projection orders is not",
        ),
    ],
)
def test_a_deployment_does_not_go_on_with_another_plan(now, done, said):
    (found,) = plan.differences(BEGUN, now, done)
    assert said in found
