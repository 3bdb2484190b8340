"""status and doctor: how things stand, read without touching anything."""

from __future__ import annotations

import json

import pytest

from migrator.migrations.up import up
from migrator.projections.rebuild import Options, rebuild
from tests.projects import edit, placed, revision


def status(cli, *args: str):
    result = cli("--json", "status", *args)
    return json.loads(result.stdout), result.exit_code


def test_a_fresh_database_is_pending_and_stays_untouched(project, produce, cli, db):
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    found, exit_code = status(cli, "--exit-code")
    assert exit_code == 6
    assert found["revisions"]["pending"] == ["0001"]
    assert found["projections"][0]["pending"] == "not built yet"
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_nothing_is_pending_after_up_and_rebuild(project, produce, cli):
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    produce(project.topic, [placed(n) for n in range(5)])
    up(project.settings)
    rebuild(project.settings, ["orders"])
    found, exit_code = status(cli, "--exit-code")
    assert exit_code == 0
    assert found["projections"][0]["live"]["rows"] == 5
    assert found["projections"][0]["live"]["lag_events"] == 0


def test_events_that_came_since_are_lag(project, produce, cli):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n) for n in range(7)])
    found, _ = status(cli)
    assert found["projections"][0]["live"]["lag_events"] == 7


def test_a_changed_definition_is_pending_and_a_comment_is_not(project, produce, cli):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    edit(project, "@check", "# a comment\n    @check")
    assert status(cli)[0]["projections"][0]["pending"] is None
    edit(project, '"placed"', '"new"')
    assert status(cli)[0]["projections"][0]["pending"] == "its definition has changed"


def test_an_unfinished_and_an_archived_build_are_shown(project, produce, cli):
    produce(project.topic, [placed(1)])
    for options in (Options(), Options(), Options(cut_over=False)):
        rebuild(project.settings, ["orders"], options)
    text = cli("status").stdout
    assert "build 1: archived, kept for migrator rollback" in text
    assert "build 3: verified" in text


def test_a_broker_that_is_away_makes_lag_unknown_and_not_an_error(
    project, produce, cli, monkeypatch
):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    found, exit_code = status(cli)
    assert exit_code == 0
    assert found["projections"][0]["live"]["lag_events"] is None
    assert any("lag is unknown" in note for note in found["notes"])


def test_doctor_finds_nothing_wrong_with_a_good_project(project, produce, cli):
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    produce(project.topic, [placed(1)])
    result = cli("--json", "doctor")
    assert result.exit_code == 0
    verdicts = {f["check"]: f["verdict"] for f in json.loads(result.stdout)["findings"]}
    assert set(verdicts.values()) == {"ok"}
    assert {"database", "kafka", "migrations", "projection orders", "privileges"} <= set(verdicts)


def test_doctor_names_what_does_not_answer(project, cli, monkeypatch):
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x")
    result = cli("doctor")
    assert result.exit_code == 5
    assert "failed   database: no PostgreSQL answers" in result.stdout


@pytest.mark.parametrize(
    ("ddl", "check"),
    [
        ("REVOKE CREATE ON DATABASE {database} FROM {role}", "privileges"),
        ("REVOKE CREATE ON SCHEMA public FROM {role}, PUBLIC", "schema"),
    ],
)
def test_doctor_says_the_grant_that_is_missing(
    project, produce, cli, db, monkeypatch, ddl, check, role
):
    produce(project.topic, [placed(1)])
    database = db.info.dbname
    db.execute(f"GRANT CREATE ON DATABASE {database} TO {role}")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.execute(ddl.format(database=database, role=role))
    url = f"postgresql://{role}@{db.info.host}:{db.info.port}/{database}"
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", url)
    result = cli("--json", "doctor")
    failed = [f for f in json.loads(result.stdout)["findings"] if f["verdict"] == "failed"]
    assert [f["check"] for f in failed] == [check]
    db.execute(failed[0]["next_step"])
    assert json.loads(cli("--json", "doctor").stdout)["findings"] != []
    assert cli("doctor").exit_code == 0
