"""Revisions and servers that misbehave: what is told, what is left, and that the next run finishes."""

from __future__ import annotations

import time

import psycopg
import pytest

from migrator.errors import MigratorError
from migrator.migrations import up
from tests import revisions


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


def awaited(look, *, seconds=30):
    limit = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return found


def exists(db, table):
    return db.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()[0]


@pytest.mark.parametrize(
    "commits",
    [
        "op.get_bind().commit()",
        "op.get_bind().get_transaction().commit()",
        "op.execute('COMMIT')",
        "op.execute('DO $$ BEGIN COMMIT; END $$')",
    ],
)
def test_a_revision_that_commits_half_way_is_stopped_and_leaves_nothing(
    tmp_path, settings, db, commits
):
    path = revisions.write(
        tmp_path,
        "0001",
        f'op.execute("CREATE TABLE half (a int)")\n{commits}\nop.execute("SELECT 1")',
    )
    with pytest.raises(
        MigratorError, match=r"leave its transaction|invalid transaction termination"
    ):
        up.up(settings)
    assert not exists(db, "half")
    path.write_text(path.read_text().replace(commits, "pass"))
    assert [done.revision for done in up.up(settings).applied] == ["0001"]
    assert exists(db, "half")


def test_a_full_disk_is_named_leaves_nothing_and_is_no_fault_of_the_file(tmp_path, settings, db):
    db.execute(
        """CREATE FUNCTION fill_disk() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device'
           USING ERRCODE = '53100'; END $$"""
    )
    revisions.write(
        tmp_path,
        "0001",
        'op.execute("CREATE TABLE half (a int)")\nop.execute("SELECT fill_disk()")',
    )
    with pytest.raises(MigratorError, match="No space left on device") as caught:
        up.up(settings)
    assert caught.value.data["sqlstate"] == "53100"
    assert "of 0001 nothing is left in the database" in caught.value.found
    assert caught.value.next_step.startswith("free some")
    assert not exists(db, "half")
    db.execute("CREATE OR REPLACE FUNCTION fill_disk() RETURNS void LANGUAGE sql AS ''")
    assert [done.revision for done in up.up(settings).applied] == ["0001"]


def test_a_read_only_server_is_refused_before_anything_is_done(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 1)
    name = db.execute("SELECT current_database()").fetchone()[0]
    db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    result = cli("up")
    assert result.exit_code == 3
    assert "the server is read-only: default_transaction_read_only is on" in result.stderr
    db.execute("SET default_transaction_read_only = off")
    db.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert not exists(db, "migrator.ledger")
    assert cli("up").exit_code == 0


def test_a_server_that_turns_read_only_half_way_says_so(tmp_path, settings, db):
    revisions.write(
        tmp_path,
        "0001",
        'op.execute("CREATE TABLE half (a int)")\nop.execute("SET TRANSACTION READ ONLY")\n'
        'op.execute("CREATE TABLE more (a int)")',
    )
    with pytest.raises(MigratorError, match="read-only transaction") as caught:
        up.up(settings)
    assert "connect to the primary" in caught.value.next_step
    assert not exists(db, "half")


@pytest.mark.parametrize("step", ["drop", "create"])
def test_killed_at_that_step_of_an_index_the_next_run_finishes(
    tmp_path, settings, start_up, database_url, db, step
):
    """An INVALID index is there first, so that the run drops it, then builds it anew."""
    revisions.indexed(tmp_path, unique=True)
    up.up(settings, to="0001")
    db.execute("INSERT INTO t VALUES (1), (1)")
    with pytest.raises(MigratorError, match="could not create unique index"):
        up.up(settings)
    db.execute("DELETE FROM t")
    waiting = """SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                 AND datname = current_database() AND query ~* %s"""
    with psycopg.connect(database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM t" if step == "drop" else "SELECT 1")
        process = start_up()
        row = awaited(lambda: db.execute(waiting, (f"^{step} ",)).fetchone())
        process.kill()
        process.communicate()
        db.execute("SELECT pg_terminate_backend(%s, 5000)", row)
    assert [done.revision for done in up.up(settings).applied] == ["0002"]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass"
    assert db.execute(valid).fetchone() == (True,)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("ROW EXCLUSIVE", "_ccnew"), ("ACCESS SHARE", "_ccold")]
)
@pytest.mark.parametrize("what", ["INDEX CONCURRENTLY t_a", "TABLE CONCURRENTLY t"])
def test_a_reindex_that_is_killed_is_done_again_and_leaves_no_invalid_index(
    tmp_path, settings, start_up, database_url, db, what, mode, suffix
):
    db.execute("CREATE TABLE t (a int); CREATE INDEX t_a ON t (a); CREATE INDEX t_b ON t ((a + 1))")
    reindex = f'with op.get_context().autocommit_block():\n    op.execute("REINDEX {what}")'
    revisions.write(tmp_path, "0001", reindex)
    waiting = """SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                 AND datname = current_database() AND query ~ '^REINDEX'"""
    left = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    with psycopg.connect(database_url) as reader:
        reader.execute(f"LOCK TABLE t IN {mode} MODE")
        process = start_up()
        row = awaited(lambda: db.execute(waiting).fetchone())
        process.kill()
        process.communicate()
        db.execute("SELECT pg_terminate_backend(%s, 5000)", row)
    assert suffix in str(db.execute(left).fetchall())
    assert [done.revision for done in up.up(settings).applied] == ["0001"]
    assert db.execute(left).fetchall() == []
    assert db.execute("SELECT to_regclass('t_a'), to_regclass('t_b')").fetchone() == ("t_a", "t_b")
