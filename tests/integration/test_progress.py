"""The progress of a rebuild, read by `status` from another process, is true and says how old it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from migrator.projections import reporter
from migrator.projections.rebuild import rebuild
from tests.integration.test_kill import await_
from tests.projects import edit, placed

SLOW = ["--max-mb-per-s", "0.02"]


def build_of(cli) -> dict:
    (projection,) = json.loads(cli("--json", "status").stdout)["projections"]
    return projection["others"][0] if projection["others"] else {"progress": []}


@pytest.fixture
def slow(project, produce):
    """A rebuild that reads for minutes, in a process of its own."""
    produce(project.topic, [placed(n) for n in range(20_000)], partition=2)
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", "rebuild-projections", "--all", *SLOW],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        yield running
        running.kill()


def test_a_running_rebuild_is_shown_and_a_killed_one_does_not_look_alive(slow, cli):
    await_(lambda: build_of(cli)["progress"], "news of the replay")
    found = build_of(cli)
    assert found["state"] == "replaying"
    assert str(slow.pid) in found["running"]["holder"]
    assert found["running"]["seems_alive"] is True
    (news,) = [n for n in found["progress"] if n["partition"] == 2]
    committed = next(p for p in found["positions"] if p["partition"] == 2)
    assert committed["next_offset"] == 0
    assert 0 < news["next_offset"] < news["end_offset"] == 20_000
    assert found["left_events"] == 20_000 - news["next_offset"]
    text = cli("status").stdout
    assert f"(process {slow.pid}) works on it" in text
    assert " of 20,000" in text
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    await_(lambda: build_of(cli)["running"] is None, "the killed run's lock at its end")
    text = cli("status").stdout
    assert "20,000 events to read; nobody works on it, it was last heard of" in text
    assert "goes on with it" in text


def test_abort_is_refused_while_it_runs_and_works_when_it_is_killed(slow, cli, db):
    await_(lambda: build_of(cli)["progress"], "news of the replay")
    refused = cli("abort", "1")
    assert refused.exit_code == 4
    assert f"(process {slow.pid})" in refused.stderr
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    await_(lambda: cli("abort", "1").exit_code == 0, "the killed run's lock at its end")
    assert db.execute("SELECT count(*) FROM migrator.progress").fetchone() == (0,)


def test_news_of_a_run_before_is_none_of_this_one(project, produce, db, cli, monkeypatch):
    """Between taking the lock and its first report, a run has said nothing yet."""
    from migrator.postgres.locks import deployer_lock

    produce(project.topic, [placed(1)])
    edit(project, 'self.status = "placed"', "self.statuss = 1 / 0")
    monkeypatch.setattr(reporter, "EVERY_S", 0.0)
    with pytest.raises(Exception, match="a handler failed"):
        rebuild(project.settings, ["orders"])
    db.execute(
        """INSERT INTO migrator.progress VALUES (1, 't', 0, 1, 9, 1, 1, now() - interval '1 min')
           ON CONFLICT DO NOTHING"""
    )
    assert build_of(cli)["progress"] != []
    with deployer_lock(project.settings, "rebuild orders"):
        assert build_of(cli)["progress"] == []


def test_when_a_replay_is_done_its_positions_say_it_all(project, produce, db, monkeypatch):
    produce(project.topic, [placed(1)])
    monkeypatch.setattr(reporter, "EVERY_S", 0.0)
    rebuild(project.settings, ["orders"])
    assert db.execute("SELECT count(*) FROM migrator.progress").fetchone() == (0,)


def test_news_that_cannot_be_written_does_not_stop_the_rebuild(project, produce, db, monkeypatch):
    produce(project.topic, [placed(1)])
    monkeypatch.setattr(reporter, "EVERY_S", 0.0)
    monkeypatch.setattr(reporter, "_WRITE", b"SELECT 1 / 0 WHERE %s IS NOT NULL")
    assert rebuild(project.settings, ["orders"]).projections[0].rows == 1


@pytest.mark.parametrize("flags", [("--json",), ("--log-format", "json")])
def test_with_json_every_line_of_stderr_is_an_object(project, produce, cli, flags):
    produce(project.topic, [placed(1), ("o2", b"{")], partition=0)
    result = cli(*flags, "rebuild-projections", "--changed", "--quarantine", "1")
    assert result.exit_code == 0
    told = [json.loads(line) for line in result.stderr.splitlines()]
    kinds = {line["event"] for line in told}
    assert kinds == {"step", "committed", "quarantined"}
    steps = [line["step"] for line in told if line["event"] == "step"]
    assert steps[0] == "changed"
    assert "replay" in steps
    failed = cli(*flags, "rebuild-projections", "--all", "--allow", "undecodable")
    errors = [json.loads(line) for line in failed.stderr.splitlines() if line.startswith("{")]
    assert errors[-1]["event"] == "error"
    assert errors[-1]["data"]["offset"] == 1
