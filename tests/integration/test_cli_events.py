"""`migrator events`: what is in a topic, and what no projection handles."""

from __future__ import annotations

import json

import pytest

from tests.projects import event, placed


def told(cli, *args):
    result = cli("--json", "events", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def filled(project, produce):
    """Twenty events of four types, a tombstone, a record that is no event, and an aborted one."""
    produce(project.topic, [placed(n) for n in range(15)], partition=0)
    produce(project.topic, [("o1", event("OrderSeen")), ("o1", None)], partition=1)
    produce(project.topic, [("p7", event("Strange")), (None, event("OrderDeleted"))], partition=2)
    produce(project.topic, [("p8", b"not json")], partition=2)
    produce(project.topic, [placed(99)], partition=3, transactional=True, abort=True)
    return project


@pytest.mark.parametrize("how", [(), ("--all",)])
def test_types_keys_gaps_and_what_nobody_handles_are_told(filled, cli, how):
    said = told(cli, filled.topic, *how)
    assert said["complete"] is True
    assert (said["events"], said["gaps"], said["tombstones"]) == (20, 2, 1)
    kinds = {kind["type"]: kind for kind in said["types"]}
    assert {name: kind["events"] for name, kind in kinds.items()} == {
        "OrderPlaced": 15,
        "OrderSeen": 1,
        "Tombstone": 1,
        "Strange": 1,
        "OrderDeleted": 1,
    }
    assert kinds["OrderPlaced"]["handled_by"] == ["orders"]
    assert kinds["OrderSeen"]["ignored_by"] == ["orders"]
    assert kinds["OrderDeleted"]["no_key"] == 1
    assert kinds["Strange"]["first"]["offset"] == 0
    assert said["unhandled"] == ["Strange"]
    assert said["unreadable"]["events"] == 1
    assert said["keys"]["estimate"] == 17
    assert said["keys_in_two_partitions"] == [{"key": "o1", "partitions": [0, 1]}]
    assert said["policy"]["retention_ms"] is None
    assert [p["end"] for p in said["partitions"]] == [15, 2, 3, 2]


def test_a_person_reads_the_same(filled, cli):
    shown = cli("events", filled.topic).stdout
    assert f"topic {filled.topic}: 4 partitions, 20 events; all were read" in shown
    assert "no projection handles or ignores: Strange" in shown
    assert "does not decode: " in shown
    assert "kept for ever" in shown


def test_a_sample_says_that_it_is_one_and_all_reads_everything(project, produce, cli):
    produce(project.topic, [placed(n) for n in range(12_000)])
    sampled, whole = told(cli, project.topic), told(cli, project.topic, "--all")
    assert sampled["complete"] is False
    assert sampled["events_read"] < 6000
    assert (whole["complete"], whole["events_read"], whole["keys"]["low"]) == (True, 12_000, 12_000)
    assert sampled["keys"]["low"] <= 12_000 <= sampled["keys"]["high"]


def test_it_needs_no_projections_and_no_database(
    tmp_path, topic, produce, brokers, monkeypatch, cli
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", brokers)
    name = topic("alone")
    produce(name, [placed(1)])
    said = told(cli, name)
    assert said["unhandled"] == ["OrderPlaced"]
    assert said["projections"] == []


def test_a_missing_topic_is_named_with_the_nearest(project, cli):
    shown = cli("events", f"{project.topic}s")
    assert shown.exit_code == 2
    assert f"did you mean {project.topic}" in shown.stderr
