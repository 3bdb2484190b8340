"""Real servers that crash, only read, or have no room: what is told, and that the next run finishes."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from migrator.errors import MigratorError
from migrator.migrations import up
from migrator.migrations.retry import Retry
from migrator.migrations.up import Started
from migrator.postgres import ledger
from migrator.settings import load
from tests import conftest, revisions
from tests.own_server import own_server, resize, small_disk


@pytest.fixture(scope="module")
def server():
    if conftest.KIND != "embedded":
        pytest.skip("needs the programs of an embedded PostgreSQL")
    with own_server(conftest.POSTGRES) as running:
        yield running


@pytest.fixture
def url(server):
    """A fresh database on the server that may be restarted."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def settings(tmp_path, url, monkeypatch):
    """A long lock_timeout, and no transaction is long: the tests hold the run where they want it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", url)
    (tmp_path / "migrator.toml").write_text(
        "[database]\nlock_timeout_ms = 60000\nlong_transaction_s = 600\ndeadline_s = 120\n"
        '[migrations]\nrules_from = "0003"\n'
    )
    return load()


def await_lock(url, application):
    limit = time.monotonic() + 60
    query = """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
               AND datname = current_database() AND application_name = %s"""
    with psycopg.connect(url, autocommit=True) as conn:
        while conn.execute(query, (application,)).fetchone() == (0,):
            assert time.monotonic() < limit
            time.sleep(0.02)


EXEMPT = """
op.execute("INSERT INTO t VALUES (1)")
with op.get_context().autocommit_block():
    op.execute("INSERT INTO t VALUES (2)")
    op.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)")
    op.execute("INSERT INTO held VALUES (3)")
op.execute("INSERT INTO t VALUES (4)")
"""
POINTS = {
    "in a piece": "LOCK TABLE t IN SHARE MODE",
    "in a statement with a transaction of its own": "LOCK TABLE held",
    "in an index build": "SELECT FROM t",
    "at a note": "LOCK TABLE migrator.committed",
    "at the ledger's entry": "LOCK TABLE migrator.ledger IN SHARE MODE",
    "at the stamp": "LOCK TABLE alembic_version IN SHARE MODE",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_server_that_crashes_and_comes_back_there_loses_nothing_and_does_nothing_twice(
    tmp_path, server, url, settings, point
):
    revisions.write(tmp_path, "0001", 'op.execute("CREATE TABLE t (a int)")')
    revisions.write(tmp_path, "0002", EXEMPT, revises="0001")
    revisions.write(tmp_path, "0003", 'op.execute("CREATE TABLE u (a int)")', revises="0002")
    up.up(settings, to="0001")
    holder = psycopg.connect(url)
    holder.execute("CREATE TABLE held (a int)")
    holder.commit()
    if point == "in an index build":
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    holder.execute(POINTS[point])
    heard = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(up.up, settings, progress=heard.append)
        await_lock(url, "migrator up")
        server.restart()
        outcome = running.result(120)
    holder.close()
    assert [done.revision for done in outcome.applied] == ["0002", "0003"]
    assert any(step.lost_connection for step in heard if isinstance(step, Retry))
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,), (4,)]
        assert conn.execute("SELECT a FROM held").fetchall() == [(3,)]
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass"
        assert conn.execute(valid).fetchone() == (True,)
        assert [entry.subject for entry in ledger.entries(conn)] == ["0001", "0002", "0003"]


def test_a_server_that_crashes_between_two_revisions_loses_neither(tmp_path, server, url, settings):
    revisions.tables(tmp_path, 3)

    def progress(step):
        if isinstance(step, Started) and step.number > 1:
            server.restart()

    assert len(up.up(settings, progress=progress).applied) == 3
    with psycopg.connect(url) as conn:
        assert [entry.subject for entry in ledger.entries(conn)] == ["0001", "0002", "0003"]


def test_a_server_that_is_down_is_exit_5_and_the_same_command_finishes(
    tmp_path, server, settings, cli, monkeypatch
):
    revisions.tables(tmp_path, 3)
    up.up(settings, to="0001")
    server.stop()
    result = cli("up")
    server.start()
    assert (result.exit_code, "no PostgreSQL answers" in result.stderr) == (5, True)
    result = cli("--json", "up")
    assert [one["revision"] for one in json.loads(result.stdout)["applied"]] == ["0002", "0003"]


def test_a_standby_answers_status_and_refuses_up_and_rollback(
    tmp_path, server, url, settings, cli, monkeypatch
):
    revisions.tables(tmp_path, 3)
    up.up(settings, to="0001")
    standby = server.standby()
    try:
        monkeypatch.setenv(
            "MIGRATOR_DATABASE_URL", standby.url.rpartition("/")[0] + "/" + url.rpartition("/")[2]
        )
        for command in (["up"], ["rollback", "--reason", "try", "--yes"]):
            result = cli(*command)
            assert result.exit_code == 3, result.output
            assert "the server is read-only: it is a standby" in result.stderr
            assert "connect to the primary" in result.stderr
        result = cli("--json", "status")
        assert result.exit_code == 0, result.output
        assert "0002" in result.stdout
        assert cli("up", "--dry-run").exit_code == 0
        assert cli("history").exit_code == 0
    finally:
        standby.stop()
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", url)
    assert cli("up").exit_code == 0


def test_a_disk_that_is_really_full_is_named_and_the_next_run_finishes(
    tmp_path, server, url, settings
):
    disk = small_disk("2m")
    try:
        folder = disk.__enter__()
    except OSError as exc:
        pytest.skip(f"no small disk is to be had: {exc}")
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            revisions.write(tmp_path, "0001", 'op.execute("CREATE TABLE half (a int)")')
            revisions.write(tmp_path, "0002", FULL, revises="0001")
            revisions.write(tmp_path, "0003", revises="0002")
            with pytest.raises(MigratorError, match="No space left on device") as caught:
                up.up(settings)
            assert caught.value.data["sqlstate"] == "53100"
            assert caught.value.data["applied"] == ["0001"]
            assert "of 0002 these statements stay committed" in caught.value.found
            assert caught.value.next_step.startswith("free some")
            resize(folder, "64m")
            assert [done.revision for done in up.up(settings).applied] == ["0002", "0003"]
            assert conn.execute("SELECT count(*) FROM filled").fetchone() == (100_000,)
            conn.execute("DROP TABLE filled")
            conn.execute("DROP TABLESPACE small")
    finally:
        disk.__exit__(None, None, None)


FULL = """
op.execute("CREATE TABLE filled (a text) TABLESPACE small")
op.execute("CREATE FUNCTION many() RETURNS int LANGUAGE sql AS 'SELECT 100000'")
op.execute("COMMIT")
op.execute("INSERT INTO filled SELECT repeat('x', 100) FROM generate_series(1, many())")
"""
