"""Every wrong way to call it: one clear message, the right exit code, no traceback."""

from __future__ import annotations

import json
import uuid

import psycopg
import pytest

from tests.projects import placed, revision


def said(result) -> str:
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def test_help_names_every_command(cli):
    result = cli("--help")
    assert result.exit_code == 0
    from migrator.cli.root import COMMANDS

    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", ["up", "status", "history", "rollback", "doctor"])
def test_no_server_is_exit_code_5(cli, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/d")
    result = cli(command)
    assert result.exit_code == 5
    assert "no PostgreSQL answers" in result.output
    assert "secret" not in result.output


def test_a_wrong_password_is_exit_code_5(cli, db, monkeypatch, role):
    require_password(db, role)
    url = f"postgresql://{role}:wrong@127.0.0.1:{db.info.port}/{db.info.dbname}"
    result = cli("--database-url", url, "status")
    assert result.exit_code == 5
    assert "does not accept the user or the password" in said(result)
    assert "wrong" not in result.stderr


def require_password(db: psycopg.Connection, role: str) -> None:
    """Ask for a password from this role alone, on the server that other tests use, too."""
    (file,) = db.execute("SHOW hba_file").fetchone()
    (rules,) = db.execute("SELECT pg_read_file(%s)", (file,)).fetchone()
    lines = [f"host all {role} 127.0.0.1/32 scram-sha-256", *rules.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    db.execute(
        psycopg.sql.SQL("COPY (SELECT unnest({}::text[])) TO {}").format(
            psycopg.sql.Literal(kept), psycopg.sql.Literal(file)
        )
    )
    db.execute(
        psycopg.sql.SQL("ALTER ROLE {} PASSWORD 'right'").format(psycopg.sql.Identifier(role))
    )
    db.execute("SELECT pg_reload_conf()")


def test_a_database_that_is_not_there_is_exit_code_5(cli, db):
    url = f"postgresql://postgres@127.0.0.1:{db.info.port}/nowhere_{uuid.uuid4().hex}"
    result = cli("--database-url", url, "status")
    assert (result.exit_code, "no such database" in said(result)) == (5, True)


def test_a_pooled_host_is_refused_with_the_direct_one(cli):
    url = "postgresql://u:secret@ep-calm-sea-123-pooler.eu-central-1.aws.neon.tech/d"
    result = cli("--database-url", url, "status")
    assert result.exit_code == 3
    assert "use ep-calm-sea-123.eu-central-1.aws.neon.tech" in said(result)


def test_wrong_settings_are_all_reported_with_exit_code_2(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "migrator.toml").write_text("[database]\nlock_timeout_ms = 0\nulr = 'x'\n")
    result = cli("status")
    assert result.exit_code == 2
    assert "2 settings are wrong" in said(result)


def test_an_unknown_command_is_exit_code_2_with_the_nearest(cli):
    result = cli("rebuild-projection")
    assert result.exit_code == 2
    assert "rebuild-projections" in result.stderr


def test_an_unknown_projection_is_exit_code_2_with_the_nearest(cli, project):
    result = cli("rebuild-projections", "--projection", "order")
    assert (result.exit_code, "did you mean orders?" in said(result)) == (2, True)


def test_an_error_in_json_is_one_document_on_stdout(cli, project):
    result = cli("--json", "rebuild-projections", "--projection", "order")
    document = json.loads(result.stdout)
    assert (document["error"], document["exit_code"]) == ("usage", 2)
    assert document["data"]["known"] == ["orders"]


def test_a_revision_without_rollback_script_is_exit_code_3_and_nothing_is_applied(cli, project, db):
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    revision(project, "0002", "0001", "CREATE TABLE b (id int)", "DROP TABLE b")
    (project.root / "migrations" / "rollback" / "0002.sql").unlink()
    result = cli("up")
    assert result.exit_code == 3
    assert "0002" in said(result)
    assert db.execute("SELECT to_regclass('a')").fetchone() == (None,)


def test_two_heads_are_exit_code_3(cli, project, db):
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    revision(project, "0002", "0001", "CREATE TABLE b (id int)", "DROP TABLE b")
    revision(project, "0003", "0001", "CREATE TABLE c (id int)", "DROP TABLE c")
    result = cli("up")
    assert result.exit_code == 3
    assert "0002" in said(result)
    assert "0003" in result.stderr


def test_no_broker_is_exit_code_5(cli, project, monkeypatch):
    monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = cli("rebuild-projections", "--projection", "orders")
    assert (result.exit_code, "no Kafka broker answers" in said(result)) == (5, True)


def test_a_poison_event_is_refused_or_exit_code_1_and_live_goes_on(cli, project, produce, db):
    produce(project.topic, [placed(1)])
    assert cli("rebuild-projections", "--projection", "orders").exit_code == 0
    produce(project.topic, [("x", b"junk")])
    assert cli("rebuild-projections", "--projection", "orders").exit_code == 3
    result = cli("rebuild-projections", "--projection", "orders", "--allow", "undecodable")
    assert result.exit_code == 1
    assert "an event does not decode" in result.stderr
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_nothing_named_is_exit_code_2(cli, project):
    result = cli("rebuild-projections")
    assert (result.exit_code, "no projection is named" in said(result)) == (2, True)


def test_a_projection_file_that_does_not_import_is_named_with_its_line(cli, project):
    (project.root / "projections" / "broken.py").write_text("import nothing_of_that_name\n")
    result = cli("rebuild-projections", "--all")
    assert result.exit_code == 2
    assert "broken.py does not import: line 1: ModuleNotFoundError" in said(result)


def test_a_role_without_privileges_is_told_so(cli, project, produce, db, role, monkeypatch):
    produce(project.topic, [placed(1)])
    url = f"postgresql://{role}@127.0.0.1:{db.info.port}/{db.info.dbname}"
    result = cli("--database-url", url, "rebuild-projections", "--all")
    assert result.exit_code == 1
    assert "permission denied" in result.stderr
    assert "migrator doctor" in result.stderr


def test_a_wrong_flag_is_one_document_in_json(cli):
    result = cli("--json", "status", "--nonsense")
    assert result.exit_code == 2
    assert "--nonsense" in json.loads(result.stdout)["found"]


def test_options_of_the_url_are_kept(cli, db, monkeypatch):
    url = f"postgresql://postgres@127.0.0.1:{db.info.port}/{db.info.dbname}"
    from migrator.postgres.connect import connect
    from migrator.settings import load

    monkeypatch.setenv("MIGRATOR_DATABASE_URL", f"{url}?options=-csearch_path%3Dapp")
    with connect(load(), "test") as conn:
        shown = conn.execute("SELECT current_setting('search_path'), current_setting('timezone')")
        assert shown.fetchone() == ("app", "UTC")


def test_verbose_tells_each_step_on_stderr(cli, project, produce):
    produce(project.topic, [placed(1)])
    result = cli("-v", "--log-format", "json", "rebuild-projections", "--all")
    steps = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    ended = dict.fromkeys(s["step"] for s in steps if s["event"] == "step ended")
    assert list(ended) == [
        "preflight",
        "prepare",
        "replay",
        "load",
        "verify",
        "cut-over",
    ]
