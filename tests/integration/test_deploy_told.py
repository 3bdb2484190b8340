"""What a deployment tells: alerts, metrics, log lines. None of them makes it fail, or tells a secret."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.answering import answering
from tests.projects import placed, revision, states

LOSES_NOTHING = "-- loses: nothing\nDROP TABLE notes;"
SECRET = "sesame-open"


@pytest.fixture
def hooks():
    with answering(lambda _path: (200, {})) as server:
        server.address = server.url.removeprefix("http://").removesuffix("/healthz")
        yield server


@pytest.fixture
def notes(tmp_path, make_settings, monkeypatch, hooks):
    """A project without projections, whose one revision is pending; alerts go to `hooks`."""
    project = SimpleNamespace(settings=make_settings(tmp_path), root=tmp_path)
    revision(project, "0001", None, "CREATE TABLE notes (id int PRIMARY KEY)", LOSES_NOTHING)
    alerts(monkeypatch, f"json://ada:{SECRET}@{hooks.address}/")
    return project


def alerts(monkeypatch, *urls: str) -> None:
    monkeypatch.setenv("MIGRATOR_NOTIFY__URLS", json.dumps(urls))


def told(hooks) -> list[tuple[str, str, str]]:
    found = [json.loads(body) for method, *_, body in hooks.seen if method == "POST"]
    return [(each["type"], each["title"], each["message"]) for each in found]


def deploy(cli, *more: str):
    return cli("deploy", "--skip-drift", *more)


def test_alerts_tell_of_begin_and_end(notes, cli, hooks):
    done = deploy(cli)
    assert (done.exit_code, done.stderr) == (0, "")
    (begun, plan), (ended, _) = [(title, message) for _, title, message in told(hooks)]
    assert [kind for kind, *_ in told(hooks)] == ["info", "success"]
    assert begun.startswith("deployment 1 on ")
    assert (begun.endswith(" begins"), ended.endswith(" is done")) == (True, True)
    assert "revision 0001" in plan


def test_alerts_tell_why_it_failed(notes, cli, hooks):
    revision(notes, "0001", None, "CREATE TABLE notes (id int) TABLESPACE nowhere", LOSES_NOTHING)
    assert deploy(cli).exit_code == 1
    kind, title, message = told(hooks)[-1]
    assert (kind, title.endswith("failed (exit code 1)")) == ("failure", True)
    assert 'tablespace "nowhere" does not exist' in message


def test_alerts_and_metrics_tell_that_it_was_rolled_back(notes, cli, hooks, monkeypatch):
    check = [{"name": "never", "sql": f"SELECT false -- {SECRET}"}]
    monkeypatch.setenv("MIGRATOR_HEALTH__CHECKS", json.dumps(check))
    monkeypatch.setenv("MIGRATOR_HEALTH__FAILURES", "0")
    monkeypatch.setenv("MIGRATOR_METRICS_TEXTFILE", "deploy.prom")
    assert deploy(cli).exit_code == 7
    kind, title, message = told(hooks)[-1]
    assert (kind, title.endswith("was rolled back (exit code 7)")) == ("warning", True)
    assert "undone: 0001" in message
    numbers = (notes.root / "deploy.prom").read_text()
    for line in (
        "migrator_deployment_exit_code 7.0",
        'migrator_deployment_state{phase="expand",state="rolled-back"} 1.0',
        'migrator_deployment_step_duration_seconds{outcome="failed",step="health"} ',
    ):
        assert line in numbers


@pytest.mark.parametrize("bad", ["json://127.0.0.1:1/", "no-such-scheme://x", "json://"])
def test_an_alert_that_does_not_arrive_is_a_warning(notes, cli, monkeypatch, bad):
    alerts(monkeypatch, bad)
    done = deploy(cli)
    assert done.exit_code == 0
    assert "alert not sent" in done.stderr
    assert "[notify] urls, number 1" in done.stderr


def test_only_what_is_asked_for_is_told(notes, cli, hooks, monkeypatch):
    monkeypatch.setenv("MIGRATOR_NOTIFY__ON", '["failed", "rolled-back"]')
    assert deploy(cli).exit_code == 0
    assert told(hooks) == []


def test_metrics_are_pushed_and_a_gateway_that_is_away_does_no_harm(notes, cli, hooks, monkeypatch):
    monkeypatch.setenv("MIGRATOR_METRICS_PUSHGATEWAY", f"http://ada:{SECRET}@{hooks.address}/gate")
    assert deploy(cli).exit_code == 0
    (pushed,) = [each for each in hooks.seen if each[0] == "PUT"]
    _, path, headers, body = pushed
    assert path == "/gate/metrics/job/migrator"
    assert headers["Authorization"].startswith("Basic ")
    assert b"migrator_deployment_exit_code 0.0" in body
    monkeypatch.setenv("MIGRATOR_METRICS_PUSHGATEWAY", "http://127.0.0.1:1")
    revision(notes, "0002", "0001", "ALTER TABLE notes ADD COLUMN a text", "-- loses: a\nSELECT 1;")
    away = deploy(cli)
    assert (away.exit_code, "metrics not published" in away.stderr) == (0, True)


def test_no_secret_is_told_anywhere(notes, cli, hooks, monkeypatch, db):
    check = [
        {
            "name": "app",
            "url": f"http://ada:{SECRET}@127.0.0.1:1/?key={SECRET}",
            "headers": {"authorization": f"Bearer {SECRET}"},
        },
        {"name": "smoke", "command": ["sh", "-c", f"echo {SECRET} >&2; exit 1"]},
    ]
    monkeypatch.setenv("MIGRATOR_HEALTH__CHECKS", json.dumps(check))
    monkeypatch.setenv("MIGRATOR_HEALTH__FAILURES", "0")
    monkeypatch.setenv("MIGRATOR_HEALTH__TIMEOUT_S", "20")
    alerts(monkeypatch, f"json://ada:{SECRET}@{hooks.address}/", f"json://x:{SECRET}@127.0.0.1:1/")
    monkeypatch.setenv("MIGRATOR_METRICS_PUSHGATEWAY", f"http://ada:{SECRET}@127.0.0.1:1")
    done = cli("-vv", "--json", "deploy", "--skip-drift")
    assert done.exit_code == 7
    kept = db.execute(
        """SELECT (SELECT jsonb_agg(d) FROM migrator.deployment AS d)::text
               || (SELECT jsonb_agg(s) FROM migrator.deployment_step AS s)::text
               || (SELECT jsonb_agg(l) FROM migrator.ledger AS l)::text"""
    ).fetchone()[0]
    for text in (done.stdout, done.stderr, kept, *(part for each in told(hooks) for part in each)):
        assert SECRET not in text


def test_log_lines_carry_what_they_are_about(project, produce, cli, db):
    revision(project, "0001", None, "CREATE TABLE notes (id int PRIMARY KEY)", LOSES_NOTHING)
    produce(project.topic, [placed(n) for n in range(3)])
    done = cli("-vv", "--log-format", "json", "deploy", "--skip-drift")
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    logged = [line for line in lines if "level" in line]
    within = [line for line in logged if line.get("step") or line.get("revision")]
    assert within
    assert {line["deployment"] for line in within} == {1}
    assert "0001" in {line.get("revision") for line in logged}
    assert {
        line["build"] for line in within if line.get("step") == "verify" and "build" in line
    } == {"1"}
    assert states(db) == {1: "live"}
