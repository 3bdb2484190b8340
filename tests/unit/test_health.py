"""Health checks: what passes, how often one may fail, and what a failure says."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from migrator.deploy import health
from migrator.deploy.health import Answer
from migrator.settings import Health, HealthCheck, Settings
from tests.answering import answering

FINE = {"status": "ok", "queue": {"lag": 0}}


@pytest.fixture
def app():
    with answering(lambda _path: (200, FINE)) as server:
        yield server


def settings(*checks, **health) -> Settings:
    named = [{"name": f"check{n}", **check} for n, check in enumerate(checks)]
    return Settings(health=Health(checks=[HealthCheck(**each) for each in named], **health))


def ask(check, **health_settings) -> Answer:
    made = settings(check, **health_settings)
    return health.ask(made, made.health.checks[0])


@pytest.mark.parametrize(
    ("asked", "answer", "said"),
    [
        ({}, (200, FINE), None),
        ({}, (503, FINE), "expected status 200"),
        ({"status": 204}, (204, b""), None),
        ({"fields": {"status": "ok", "queue.lag": 0}}, (200, FINE), None),
        ({"fields": {"status": "up"}}, (200, FINE), "expected status to be 'up', found 'ok'"),
        ({"fields": {"queue.depth": 0}}, (200, FINE), "found 'None'"),
        ({"fields": {"status": "ok"}}, (200, b"<html>"), "expected JSON"),
        ({"fields": {"status": "ok"}}, (200, [1]), "found 'None'"),
        ({"latency_ms": 60_000}, (200, FINE), None),
    ],
)
def test_a_url_passes_by_status_and_fields(app, asked, answer, said):
    app.answer = lambda _path: answer
    found = ask({"url": app.url, **asked})
    assert found.passed == (said is None)
    assert said is None or said in found.said


def test_an_answer_that_takes_too_long_is_a_failure(app, monkeypatch):
    clock = iter([0.0, 0.25])
    monkeypatch.setattr(health.time, "monotonic", lambda: next(clock))
    found = ask({"url": app.url, "latency_ms": 200})
    assert (found.passed, found.said) == (False, "200 in 250 ms: expected within 200 ms")


def test_no_answer_is_a_failure_and_says_no_secret(app):
    app.shutdown()
    app.server_close()
    found = ask({"url": f"http://ada:sesame@127.0.0.1:{app.server_port}/?key=hush"})
    assert not found.passed
    assert "no answer: ConnectError" in found.said
    assert "sesame" not in found.said


def test_headers_are_sent(app):
    assert ask({"url": app.url, "headers": {"authorization": "Bearer hush"}}).passed
    assert app.seen[0][2]["authorization"] == "Bearer hush"


@pytest.mark.parametrize(
    ("code", "passed", "said"),
    [
        ("pass", True, "exit code 0"),
        ("import sys; sys.exit('no orders: Bearer hush')", False, "exit code 1: no orders: ***"),
        ("import time; time.sleep(60)", False, "did not end within 0.5 s"),
    ],
)
def test_a_command_passes_by_its_exit_code(code, passed, said):
    masked = {"name": "other", "url": "http://x", "headers": {"authorization": "Bearer hush"}}
    command = {"name": "own", "command": [sys.executable, "-c", code]}
    made = Settings(
        health=Health(
            timeout_s=0.5 if not passed and "end" in said else 30, checks=[command, masked]
        )
    )
    assert health.ask(made, made.health.checks[0]) == Answer(passed, said)


def test_a_command_that_is_not_there_is_a_failure():
    assert "cannot be run" in ask({"command": ["./no-such-command"]}).said


def watch(monkeypatch, answers, **asked):
    """Let the answers come one by one, a second apart; returns what was found, and how many were asked."""
    clock, left = [0.0], list(answers)
    monkeypatch.setattr(health, "ask", lambda *_: Answer(left.pop(0), "said"))

    def pause(seconds):
        clock[0] += seconds

    made = settings({"command": ["true"]}, **{"interval_s": 1, **asked})
    found = health.watch(made, pause=pause, now=lambda: clock[0])
    return found, len(answers) - len(left)


GOOD, BAD = True, False


@pytest.mark.parametrize(
    ("answers", "failing", "asked"),
    [
        ([GOOD] * 9, False, 4),
        ([BAD, GOOD, BAD, GOOD, GOOD], False, 4),
        ([BAD, GOOD, BAD, BAD, GOOD], True, 4),
        ([BAD, BAD, BAD, GOOD], True, 3),
        ([GOOD, GOOD, GOOD, BAD, BAD, GOOD, GOOD], False, 6),
        ([GOOD, GOOD, GOOD, BAD, BAD, BAD], True, 6),
    ],
    ids=["well", "forgiven", "too often", "at once", "waits for a good end", "a bad end"],
)
def test_a_window_of_three_seconds_forgives_two_failures(monkeypatch, answers, failing, asked):
    found, count = watch(monkeypatch, answers, window_s=3, failures=2)
    assert (bool(found.failing), count) == (failing, asked)


def test_what_failed_is_told_with_its_count(monkeypatch):
    found, _ = watch(monkeypatch, [BAD, BAD], window_s=3, failures=1)
    assert str(found) == "check0 failed 2 times, 1 are allowed: said"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({}, "nothing is given"),
        ({"url": "http://x", "sql": "SELECT true"}, "url and sql is given"),
        ({"url": "ftp://x"}, "begins with http"),
        ({"command": []}, "at least 1"),
    ],
)
def test_a_check_asks_one_thing(check, said):
    with pytest.raises(ValidationError, match=said):
        settings(check)


def test_two_checks_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two checks are named a"):
        Health(checks=[{"name": "a", "sql": "SELECT 1"}, {"name": "a", "sql": "SELECT 2"}])
