"""What counts as a fact, and what as a failure of the demo."""

import json
from dataclasses import replace

import pytest

from migrator.demo import facts, story
from migrator.demo.facts import Fact
from migrator.demo.generate import OrderLives, Totals
from migrator.demo.reader import Reads
from migrator.demo.servers import Servers
from migrator.demo.telling import Change, Chapter, Facts, Line, Typed

HOLDS = Fact("CDNOW", "orders", "SELECT 1", 69_659, 69_659)
OUTCOME = story.Outcome(
    events=69_659,
    facts=(HOLDS,),
    readers=(story.Hammered("the cut-over", 100, 0, (), 3.0, 2.0),),
    rebuilds=(),
    seconds={"all": 9.0},
    servers=Servers("postgresql://u@h/d", "h:1", "embedded"),
    folder=None,
)


def test_the_facts_of_the_log_are_the_known_ones():
    known = {question.name: question.expected for question in facts.of_cdnow()}
    assert known == {
        "orders": 69_659,
        "customers": 23_570,
        "cents by order": 250_031_563,
        "cents by customer": 250_031_563,
        "CDs by order": 167_881,
        "CDs by customer": 167_881,
        "orders of customer 07592": 201,
        "cents of customer 07592": 1_399_093,
        "customers with more than one order": 11_662,
    }


def test_without_made_up_events_nothing_is_asked_about_them():
    assert facts.of_made_up(Totals()) == []
    assert len(facts.of_new_column(Totals())) == 1


def test_made_up_events_are_asked_about_apart():
    lives = OrderLives(1000)
    list(lives)
    asked = facts.of_made_up(lives.totals) + facts.of_new_column(lives.totals)[1:]
    assert all(facts.OF["made up"] in question.query for question in asked)
    assert sum(q.expected for q in asked if q.name.startswith("orders ")) == lives.totals.orders


@pytest.mark.parametrize("found", [None, 69_658])
def test_a_fact_that_differs_fails_the_demo(found):
    assert OUTCOME.ok
    assert not replace(OUTCOME, facts=(HOLDS, replace(HOLDS, found=found))).ok


def test_an_error_of_a_reader_fails_the_demo():
    assert not replace(OUTCOME, readers=(replace(OUTCOME.readers[0], errors=1),)).ok


def test_the_worst_stall_is_that_of_reads_under_way_in_between():
    reads = Reads(4, 0, (), began=[0.0, 1.0, 2.0, 3.0], took=[0.9, 0.5, 0.1, 0.7])
    assert reads.worst_ms(1.4, 2.5) == 500
    assert reads.worst_ms(2.05, 2.06) == 100
    assert reads.worst_ms(2.5, 2.6) == 0


@pytest.fixture
def demo(cli, monkeypatch):
    """`demo(outcome, *args)`: the command, with a story that tells a little and ends so."""

    def run(outcome, *args):
        def played(wishes, tell):
            run.wishes = wishes
            for said in (
                Chapter(1, "Servers", "Two."),
                Typed("migrator up"),
                Line("done"),
                Change("-a\n+b\n"),
                Facts(outcome.facts),
            ):
                tell(said)
            return outcome

        monkeypatch.setattr(story, "run", played)
        return cli(*args)

    return run


def test_a_fact_that_differs_makes_exit_1_and_is_named(demo):
    result = demo(replace(OUTCOME, facts=(HOLDS, replace(HOLDS, found=1))), "demo")
    assert result.exit_code == 1
    assert "DIFFERS" in result.stdout
    assert "differs: CDNOW, orders: 1, not 69,659" in result.stdout


def test_facts_that_hold_make_exit_0(demo):
    result = demo(OUTCOME, "demo", "--events", "7", "--postgres", "16", "--sandbox", "embedded")
    assert result.exit_code == 0
    assert demo.wishes == story.Wishes(events=7, postgres="16", sandbox="embedded", keep=False)
    assert "$ migrator up\n  done\n  -a\n  +b\n" in result.stdout
    assert "All 1 facts hold" in result.stdout


def test_json_is_one_document_with_the_story_on_stderr(demo):
    result = demo(replace(OUTCOME, facts=(replace(HOLDS, found=None),)), "--json", "demo")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["ok"] is False
    assert document["facts"][0]["found"] is None
    assert document["facts"][0]["ok"] is False
    assert "1. Servers" in result.stderr


def test_what_is_kept_is_said_with_its_variables(demo, tmp_path):
    result = demo(replace(OUTCOME, folder=tmp_path), "demo", "--keep")
    assert f"cd {tmp_path}" in result.stdout
    assert "MIGRATOR_KAFKA_BOOTSTRAP_SERVERS=h:1" in result.stdout


def test_a_database_of_the_users_is_refused(demo):
    result = demo(OUTCOME, "--database-url", "postgresql://them@production/shop", "demo")
    assert result.exit_code == 2
    assert "takes no --database-url" in result.stderr
