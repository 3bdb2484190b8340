"""Swaps under projectors that are killed: live is a replay of the log up to its positions, every time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migrator.projections.rebuild import rebuild
from tests.hand_over import ACCOUNTS, EXAMPLE, hand_over
from tests.integration.test_follow import GIVE_UP_S, until
from tests.projects import event, write


@pytest.mark.chaos
def test_of_swaps_to_and_fro_under_two_projectors_and_kills_no_event_is_lost_or_doubled(
    tmp_path, make_settings, brokers, topic
):
    told = hand_over(tmp_path, make_settings, brokers, topic("payments"), swaps=15, seed=5)
    assert (told.swaps, told.looks) == (15, 2)


@pytest.fixture
def accounts(tmp_path, make_settings, topic, produce):
    name = topic("payments")
    write(tmp_path, ACCOUNTS.format(topic=name), "accounts.py")
    settings = make_settings(tmp_path)
    produce(name, [("a", event("Paid", cents=5))])
    rebuild(settings, ["accounts"])
    return settings, name


def started(settings, topic: str, definition_hash: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE)],
        env={
            "DATABASE_URL": settings.conninfo,
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka["bootstrap.servers"],
            "KAFKA_GROUP": f"{topic}-example",
            "TOPIC": topic,
            "DEFINITION_HASH": definition_hash,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_example_of_the_docs_follows_and_is_fenced(accounts, produce, db):
    settings, topic = accounts
    live = "SELECT definition_hash FROM migrator.build WHERE state = 'live'"
    process = started(settings, topic, db.execute(live).fetchone()[0])
    produce(topic, [("a", event("Paid", cents=7)), ("b", event("Paid", cents=1))])
    produce(topic, [("b", event("Closed"))])
    rows = "SELECT * FROM accounts"
    until(lambda: db.execute(rows).fetchall() == [("a", 12, 2, 7)])
    db.execute("UPDATE migrator.build SET definition_hash = 'another' WHERE state = 'live'")
    produce(topic, [("a", event("Paid", cents=7))])
    _, said = process.communicate(timeout=GIVE_UP_S)
    assert "fenced: build 1 of accounts is live, of definition another" in said
    assert db.execute(rows).fetchall() == [("a", 12, 2, 7)]


def test_the_example_ends_when_it_is_told_to(accounts, db):
    settings, topic = accounts
    live = "SELECT definition_hash FROM migrator.build WHERE state = 'live'"
    process = started(settings, topic, db.execute(live).fetchone()[0])
    until(
        lambda: db.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'accounts projector'"
        ).fetchone()
    )
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 0


def test_the_docs_show_the_contract_as_the_example_has_it():
    page = (Path(__file__).parents[2] / "docs" / "follow.md").read_text()
    functions = re.findall(r"SELECT (migrator\.\w+)\(", EXAMPLE.read_text())
    assert sorted(set(functions)) == ["migrator.advance", "migrator.assert_writer"]
    contract = page.partition("## A projector of your own")[2]
    assert re.findall(r"SELECT (migrator\.\w+)\(", contract) == functions[::-1]
