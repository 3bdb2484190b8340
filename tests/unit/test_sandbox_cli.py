"""`migrator sandbox` as a person and a shell see it."""

import json

import pytest
from click.testing import CliRunner

from migrator.cli.context import App
from migrator.cli.sandbox import command
from migrator.sandbox import standing

SANDBOX = standing.StandingSandbox(
    database_url="postgresql://postgres@127.0.0.1:5/postgres",
    bootstrap_servers="127.0.0.1:6",
    postgres="18",
    kind="embedded",
    log_dir="/logs",
    was_up=False,
)


@pytest.fixture
def run(monkeypatch):
    def up(postgres, kind, say):
        say(f"Starting {postgres} {kind}")
        return SANDBOX

    monkeypatch.setattr(standing, "up", up)
    monkeypatch.setattr(standing, "down", lambda: False)

    def invoke(*arguments, as_json=False):
        return CliRunner().invoke(command, arguments, obj=App(json=as_json), catch_exceptions=False)

    return invoke


def test_up_prints_what_a_shell_can_evaluate_and_nothing_else(run):
    assert run("up").stdout == (
        "export MIGRATOR_DATABASE_URL=postgresql://postgres@127.0.0.1:5/postgres\n"
        "export MIGRATOR_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:6\n"
    )


def test_progress_goes_to_stderr(run):
    assert run("up", "--postgres", "15").stderr == "Starting 15 auto\n"


def test_up_in_json_is_one_document(run):
    document = json.loads(run("up", as_json=True).stdout)

    assert document["environment"]["MIGRATOR_DATABASE_URL"] == document["database_url"]
    assert document["kind"] == "embedded"


def test_down_says_when_nothing_was_up(run):
    assert run("down").stdout == "No sandbox was up.\n"
    assert json.loads(run("down", as_json=True).stdout) == {"stopped": False}


def test_an_unknown_postgresql_is_a_usage_error(run):
    result = run("up", "--postgres", "14")

    assert result.exit_code == 2
    assert "'15', '16', '17', '18'" in result.output
