from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from migrator.errors import Busy, CannotConnect, MigratorError, Refused, UsageError
from migrator.migrations import up
from migrator.migrations.apply import Done
from migrator.migrations.retry import Retry
from migrator.migrations.up import Started, Waiting
from migrator.postgres import ledger
from tests import revisions

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


def tables(db) -> set[str]:
    found = db.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    return {name for (name,) in found if not name.startswith("alembic_version")}


def version(db) -> str | None:
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return row and row[0]


def wait_until(condition, what: str, *, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


def waits_for_a_lock(db, application: str = "migrator up") -> bool:
    found = db.execute(
        """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
           AND datname = current_database() AND application_name = %s""",
        (application,),
    ).fetchone()
    return found[0] > 0


def test_pending_revisions_are_applied_in_order_and_reported(tmp_path, settings, db):
    revisions.tables(tmp_path, 3)
    outcome = up.up(settings)
    assert [done.revision for done in outcome.applied] == ["0001", "0002", "0003"]
    assert tables(db) == {"t1", "t2", "t3"}
    assert (outcome.version, version(db)) == ("0003", "0003")


def test_many_revisions_share_one_session(tmp_path, settings, db):
    revisions.tables(tmp_path, 20)
    assert len(up.up(settings).applied) == 20


def test_each_revision_leaves_an_entry_with_its_rollback_script(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    outcome = up.up(settings)
    first, second = ledger.entries(db)
    assert (first.act, first.subject, first.revises) == ("up", "0001", None)
    assert (second.subject, second.revises, second.phase) == ("0002", "0001", "expand")
    assert second.rollback_script == "DROP TABLE t2;"
    assert first.run == second.run == outcome.run
    assert second.previous_hash == first.entry_hash


def test_the_second_time_there_is_nothing_to_do(tmp_path, settings, db):
    revisions.tables(tmp_path)
    up.up(settings)
    again = up.up(settings)
    assert (again.applied, again.version) == ((), "0003")
    assert len(ledger.entries(db)) == 3


def test_nothing_to_do_takes_no_lock_and_writes_nothing(tmp_path, settings, db):
    (tmp_path / "migrations").mkdir()
    outcome = up.up(settings)
    assert (outcome.applied, outcome.version) == ((), None)
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_progress_tells_each_step(tmp_path, settings):
    revisions.tables(tmp_path, 2)
    heard = []
    up.up(settings, progress=heard.append)
    assert [type(step) for step in heard] == [Started, Done, Started, Done]
    assert [step.number for step in heard[::2]] == [1, 2]


def test_to_stops_there(tmp_path, settings, db):
    revisions.tables(tmp_path)
    assert up.up(settings, to="0002").version == "0002"
    assert tables(db) == {"t1", "t2"}


def test_an_unknown_revision_is_a_usage_error_with_the_near_ones(tmp_path, settings, db):
    revisions.tables(tmp_path)
    with pytest.raises(UsageError, match="unknown revision '0009'") as caught:
        up.up(settings, to="0009")
    assert "did you mean" in caught.value.expected
    assert tables(db) == set()


def test_a_phase_stops_before_the_other(tmp_path, settings, db):
    revisions.write(tmp_path, "0001", 'op.execute("CREATE TABLE t1 (a int)")')
    revisions.write(tmp_path, "0002", revises="0001", head='phase = "contract"')
    outcome = up.up(settings, phase="expand")
    assert outcome.version == "0001"
    assert outcome.stopped_before is not None
    assert outcome.stopped_before.id == "0002"


def test_without_a_rollback_script_nothing_at_all_is_applied(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    (tmp_path / "migrations/rollback/0002.sql").unlink()
    with pytest.raises(Refused, match=r"rollback/0002\.sql is missing"):
        up.up(settings)
    assert tables(db) == set()


def test_an_irreversible_revision_is_applied_with_its_reason(tmp_path, settings, db):
    revisions.write(
        tmp_path,
        "0001",
        head='phase = "contract"\nrollback = irreversible("rows are gone")',
        rollback=None,
    )
    up.up(settings)
    (entry,) = ledger.entries(db)
    assert (entry.irreversible, entry.rollback_script) == ("rows are gone", None)


def test_a_statement_that_fails_half_way_leaves_nothing_of_its_revision(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    revisions.write(
        tmp_path,
        "0002",
        """
        op.execute("CREATE TABLE half (a int)")
        op.execute("ALTER TABLE not_there ADD COLUMN b int,\\n ADD COLUMN c int")
        """,
        revises="0001",
    )
    with pytest.raises(MigratorError) as caught:
        up.up(settings)
    assert tables(db) == {"t1"}
    assert (version(db), len(ledger.entries(db))) == ("0001", 1)
    assert caught.value.exit_code == 1
    assert caught.value.found == (
        'revision 0002 failed: relation "not_there" does not exist\n'
        "in: ALTER TABLE not_there ADD COLUMN b int,\n"
        "applied before it, and kept: 0001; of 0002 nothing is left in the database"
    )
    assert caught.value.data["applied"] == ["0001"]
    assert caught.value.data["sqlstate"] == "42P01"


def test_after_a_failure_the_same_command_goes_on(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    path = revisions.write(tmp_path, "0002", 'op.execute("SELECT 1/0")', revises="0001")
    with pytest.raises(MigratorError, match="division by zero"):
        up.up(settings)
    path.write_text(path.read_text().replace("1/0", "1"))
    assert [done.revision for done in up.up(settings).applied] == ["0002"]


def test_an_error_of_python_names_the_line(tmp_path, settings):
    path = revisions.write(tmp_path, "0001", 'op.execute("SELECT 1")\nundefined_name')
    with pytest.raises(MigratorError) as caught:
        up.up(settings)
    line = path.read_text().splitlines().index("    undefined_name") + 1
    assert f"{path}, line {line}: NameError" in caught.value.found


@pytest.mark.parametrize("statement", ["COMMIT", "SELECT 1; commit;", "/* x */ ROLLBACK"])
def test_a_revision_cannot_end_its_own_transaction(tmp_path, settings, db, statement):
    revisions.write(
        tmp_path, "0001", f'op.execute("CREATE TABLE t (a int)")\nop.execute("{statement}")'
    )
    with pytest.raises(Refused, match="0001 would leave its transaction"):
        up.up(settings)
    assert tables(db) == set()


def test_an_autocommit_block_that_migrator_cannot_see_is_refused(tmp_path, settings, db):
    revisions.write(
        tmp_path,
        "0001",
        """
        op.execute("CREATE TABLE t (a int)")
        with getattr(op.get_context(), "autocommit" + "_block")():
            op.execute("VACUUM")
        """,
    )
    with pytest.raises(Refused, match="would leave its transaction: autocommit_block"):
        up.up(settings)
    assert tables(db) == set()


def test_a_savepoint_in_a_revision_is_fine(tmp_path, settings, db):
    revisions.write(
        tmp_path,
        "0001",
        """
        with op.get_bind().begin_nested():
            op.execute("CREATE TABLE t (a int)")
        """,
    )
    up.up(settings)
    assert tables(db) == {"t"}


def test_what_a_revision_sets_does_not_reach_the_next(tmp_path, settings, db):
    revisions.chain(
        tmp_path,
        (
            "0001",
            """
            op.execute("SET lock_timeout = '1h'")
            op.execute("SET statement_timeout = 0")
            op.execute("SET search_path = pg_catalog")
            op.execute("CREATE TEMP TABLE left_over (a int)")
            """,
            "SELECT 1;",
        ),
        (
            "0002",
            '''
            op.execute("""CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS lock,
                current_setting('statement_timeout') AS statement,
                current_setting('search_path') AS path, to_regclass('left_over') AS left_over""")
            ''',
            "SELECT 1;",
        ),
    )
    up.up(settings)
    seen = db.execute("SELECT * FROM seen").fetchone()
    assert seen == ("500ms", "1min", '"$user", public', None)


def test_a_revision_may_empty_the_search_path_as_pg_dump_does(tmp_path, settings, db):
    empty = "SELECT pg_catalog.set_config('search_path', '', false)"
    revisions.write(
        tmp_path, "0001", f'op.execute("{empty}")\nop.execute("CREATE TABLE public.t (a int)")'
    )
    up.up(settings)
    assert (tables(db), version(db)) == ({"t"}, "0001")


def test_a_lock_that_is_released_is_waited_for(tmp_path, settings, database_url, db):
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("CREATE TABLE t (a int)")', "SELECT 1;"),
        ("0002", 'op.execute("ALTER TABLE t ADD COLUMN b int")', "SELECT 1;"),
    )
    up.up(settings, to="0001")
    with psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE t")

        def progress(step):
            if isinstance(step, Retry):
                assert "lock timeout" in step.cause
                blocker.rollback()

        outcome = up.up(settings, progress=progress)
    assert outcome.applied[0].retries == 1


def test_a_lock_that_is_never_released_is_busy_after_the_deadline(
    tmp_path, make_settings, database_url, db
):
    settings = make_settings(tmp_path, database={"lock_timeout_ms": 20, "deadline_s": 0.4})
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("CREATE TABLE t1 (a int)")', "SELECT 1;"),
        (
            "0002",
            'op.execute("CREATE TABLE t2 (a int)")\nop.execute("ALTER TABLE held ADD b int")',
            "SELECT 1;",
        ),
    )
    db.execute("CREATE TABLE held (a int)")
    with psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE held")
        with pytest.raises(Busy, match="revision 0002 gave up after") as caught:
            up.up(settings)
    assert caught.value.exit_code == 4
    assert caught.value.data["attempts"] > 1
    assert caught.value.data["applied"] == ["0001"]
    assert tables(db) == {"t1", "held"}


def test_an_index_is_built_concurrently_and_recorded(tmp_path, settings, db):
    revisions.indexed(tmp_path)
    up.up(settings)
    assert index_is_valid(db, "t_a")
    assert [entry.subject for entry in ledger.entries(db)] == ["0001", "0002"]


def index_is_valid(db, name: str) -> bool | None:
    row = db.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (name,)
    ).fetchone()
    return row and row[0]


def test_an_invalid_index_left_behind_is_rebuilt_and_never_skipped(tmp_path, settings, db):
    revisions.indexed(tmp_path, unique=True)
    up.up(settings, to="0001")
    db.execute("INSERT INTO t VALUES (1), (1)")
    with pytest.raises(MigratorError, match="could not create unique index") as caught:
        up.up(settings)
    assert "INVALID index" in caught.value.found
    assert index_is_valid(db, "t_a") is False
    db.execute("DELETE FROM t")
    up.up(settings)
    assert index_is_valid(db, "t_a") is True
    assert version(db) == "0002"


def test_an_index_of_that_name_on_another_table_is_not_taken_for_it(tmp_path, settings, db):
    revisions.indexed(tmp_path)
    db.execute("CREATE TABLE other (a int); CREATE INDEX t_a ON other (a)")
    with pytest.raises(MigratorError, match="exists already, on another table than t"):
        up.up(settings)
    assert version(db) == "0001"


def test_killed_between_the_index_and_its_stamp_the_same_command_finishes(
    tmp_path, settings, start_up, database_url, db
):
    revisions.indexed(tmp_path)
    up.up(settings, to="0001")
    with psycopg.connect(database_url) as blocker:
        # The ledger's append waits here, after the index and before the commit of its stamp.
        blocker.execute("LOCK TABLE migrator.ledger IN SHARE MODE")
        process = start_up()
        wait_until(lambda: waits_for_a_lock(db), "the append")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (index_is_valid(db, "t_a"), version(db)) == (True, "0001")
    assert [done.revision for done in up.up(settings).applied] == ["0002"]
    assert (index_is_valid(db, "t_a"), version(db)) == (True, "0002")


def test_an_index_that_a_killed_run_still_builds_on_the_server_is_waited_for(
    tmp_path, settings, database_url, db
):
    """The server notices within a second that a client is gone; here it never does."""
    revisions.indexed(tmp_path)
    up.up(settings, to="0001")
    with psycopg.connect(database_url) as old_snapshot, ThreadPoolExecutor(1) as pool:
        old_snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old_snapshot.execute("SELECT 1 FROM pg_class")
        left_over = psycopg.connect(database_url, autocommit=True, application_name="migrator up")
        build = pool.submit(left_over.execute, "CREATE INDEX CONCURRENTLY t_a ON t (a)")
        wait_until(lambda: waits_for_a_lock(db), "the build")
        causes = []

        def progress(step):
            if isinstance(step, Retry):
                causes.append(step.cause)
                old_snapshot.rollback()

        up.up(settings, progress=progress)
        build.result()
        left_over.close()
    assert "is still building index t_a" in causes[0]
    assert (index_is_valid(db, "t_a"), version(db)) == (True, "0002")


def test_a_build_waits_for_old_snapshots_longer_than_lock_timeout(
    tmp_path, make_settings, start_up, database_url, db
):
    settings = make_settings(tmp_path, database={"lock_timeout_ms": 1, "statement_timeout_ms": 900})
    revisions.indexed(tmp_path)
    with psycopg.connect(database_url) as old_snapshot:
        old_snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old_snapshot.execute("SELECT 1 FROM pg_class")
        process = start_up(
            MIGRATOR_DATABASE__LOCK_TIMEOUT_MS="1", MIGRATOR_DATABASE__STATEMENT_TIMEOUT_MS="900"
        )
        wait_until(lambda: waits_for_a_lock(db), "the build")
        waited = "SELECT now() - query_start > '1.2 s' FROM pg_stat_activity WHERE query ~ '^CREATE INDEX'"
        wait_until(lambda: db.execute(waited).fetchone() == (True,), "a long wait")
        old_snapshot.rollback()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert [done["retries"] for done in json.loads(out)["applied"]] == [0, 0]
    assert settings.database.lock_timeout_ms == 1


def test_of_two_runners_one_works_and_the_other_finds_nothing_to_do(
    tmp_path, settings, start_up, database_url, db
):
    revisions.tables(tmp_path, 2)
    revisions.write(tmp_path, "0003", 'op.execute("ALTER TABLE held ADD b int")', revises="0002")
    db.execute("CREATE TABLE held (a int)")
    with psycopg.connect(database_url) as blocker:
        blocker.execute("LOCK TABLE held")
        first = start_up(MIGRATOR_DATABASE__LOCK_TIMEOUT_MS="60000")
        wait_until(lambda: waits_for_a_lock(db), "the first runner")
        holders = []

        def progress(step):
            if isinstance(step, Waiting):
                holders.append(step.holder)
                blocker.rollback()

        second = up.up(settings, progress=progress)
        out, err = first.communicate(timeout=30)
    assert first.returncode == 0, err
    assert [done["revision"] for done in json.loads(out)["applied"]] == ["0001", "0002", "0003"]
    assert (second.applied, second.version) == ((), "0003")
    assert f"process {first.pid}" in holders[0]


def test_a_run_that_has_lost_the_lock_commits_nothing(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)

    def take_over(step):
        if isinstance(step, Started) and step.number == 2:
            db.execute("UPDATE migrator.deployer SET epoch = epoch + 1")

    with pytest.raises(Busy, match="was lost") as caught:
        up.up(settings, progress=take_over)
    assert caught.value.data == {"revision": "0002", "applied": ["0001"]}
    assert tables(db) == {"t1"}


def test_success_that_was_not_committed_is_found_out(tmp_path, settings, monkeypatch):
    revisions.tables(tmp_path, 1)
    claimed = Done("0001", "", "expand", entry=1, duration_ms=1, retries=0)
    monkeypatch.setattr("migrator.migrations.apply.apply", lambda *_: claimed)
    with pytest.raises(MigratorError, match="the database is at no revision after the run"):
        up.up(settings)


def test_a_database_ahead_of_the_checkout_is_no_error(tmp_path, settings, cli):
    revisions.tables(tmp_path, 3)
    up.up(settings)
    (tmp_path / "migrations/versions/0003_x.py").unlink()
    result = cli("up")
    assert result.exit_code == 0
    assert result.stdout == (
        "nothing pending; the database is at 0003\n"
        "the database is ahead of this checkout, which has no file for 0003; that is no error\n"
    )


def test_an_existing_alembic_database_is_taken_as_it_is(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    db.execute("CREATE TABLE t1 (a int)")
    db.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    db.execute("INSERT INTO alembic_version VALUES ('0001')")
    (tmp_path / "migrations/rollback/0001.sql").unlink()
    assert [done.revision for done in up.up(settings).applied] == ["0002"]
    assert [entry.subject for entry in ledger.entries(db)] == ["0002"]


def test_a_version_that_the_ledger_does_not_have_is_refused(tmp_path, settings, db):
    revisions.tables(tmp_path, 3)
    up.up(settings, to="0002")
    db.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(Refused, match=r"names 0001, but the newest .* ledger is 0002"):
        up.up(settings)


def test_two_versions_in_the_table_are_refused(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    up.up(settings, to="0001")
    db.execute("INSERT INTO alembic_version VALUES ('0002')")
    with pytest.raises(Refused, match="names 2 heads: 0001, 0002"):
        up.up(settings)


def test_two_heads_are_refused_before_the_database_is_asked(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 1)
    revisions.write(tmp_path, "0001b")
    result = cli("up")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: there are 2 heads:")


def test_a_dry_run_prints_the_sql_and_changes_nothing(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 1)
    revisions.write(
        tmp_path,
        "0002",
        "op.get_bind().execute(sa.text('SELECT 1')).scalar()",
        revises="0001",
        message="Reads",
    )
    result = cli("up", "--dry-run")
    assert result.exit_code == 0
    assert "-- 0001 Revision 0001 (expand)\nCREATE TABLE t1 (a int);" in result.stdout
    assert (
        "-- 0002 Reads (expand)\n-- Its SQL depends on what the database answers" in result.stdout
    )
    assert "2 revisions would be applied" in result.stdout
    assert tables(db) == set()
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_a_dry_run_waits_for_nobody(tmp_path, settings, database_url, db, cli):
    revisions.tables(tmp_path, 2)
    up.up(settings, to="0001")
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT pg_advisory_xact_lock(hashtextextended('migrator:lock:deploy', 0))")
        assert cli("up", "--dry-run").exit_code == 0


def test_up_prints_what_it_did_for_people_and_for_programs(tmp_path, settings, cli):
    revisions.tables(tmp_path, 2)
    result = cli("up", "--to", "0001")
    first, *rest = result.stdout.splitlines()
    assert re.fullmatch(r"0001 applied in \d+ ms: Revision 0001", first)
    assert rest == ["1 revision applied; the database is at 0001", "still pending: 0002"]
    assert cli("up", "--to", "0001").stdout.startswith("nothing applied; ")
    document = json.loads(cli("--json", "up").stdout)
    assert [done["revision"] for done in document["applied"]] == ["0002"]
    assert document["version"] == "0002"


def test_no_server_is_exit_5(tmp_path, make_settings, monkeypatch, cli):
    revisions.tables(tmp_path, 1)
    make_settings(tmp_path)
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/d")
    result = cli("up")
    assert result.exit_code == 5
    assert "no PostgreSQL answers" in result.stderr
    assert "secret" not in result.output


def test_a_pooled_host_is_refused(tmp_path, make_settings, monkeypatch, cli):
    revisions.tables(tmp_path, 1)
    make_settings(tmp_path)
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://u@ep-a-b-pooler.neon.tech/d")
    result = cli("up")
    assert result.exit_code == 3
    assert "next: use ep-a-b.neon.tech" in result.stderr


def test_a_database_that_is_not_there_is_exit_5(tmp_path, make_settings, database_url):
    revisions.tables(tmp_path, 1)
    settings = make_settings(tmp_path, database={"url": database_url + "_not_there"})
    with pytest.raises(CannotConnect, match="there is no such database"):
        up.up(settings)


@pytest.fixture
def alembic(tmp_path, settings):
    """`alembic("history")`: the plain command, in the project."""
    revisions.tables(tmp_path, 2)
    shutil.copy(REPOSITORY / "migrations/env.py", tmp_path / "migrations/env.py")
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_plain_alembic_reads_the_history_and_the_current_revision(alembic, settings):
    up.up(settings, to="0001")
    assert "0001 -> 0002 (head), Revision 0002" in alembic("history").stdout
    assert alembic("current").stdout.startswith("0001")


def test_plain_alembic_cannot_go_past_a_ledger(alembic, settings, db):
    up.up(settings, to="0001")
    result = alembic("upgrade", "head")
    assert result.returncode != 0
    assert "plain alembic does not write it" in result.stderr
    assert (tables(db), version(db)) == ({"t1"}, "0001")


def test_what_plain_alembic_applied_before_the_ledger_is_adopted(alembic, settings, db):
    result = alembic("upgrade", "0001")
    assert result.returncode == 0, result.stderr
    assert [done.revision for done in up.up(settings).applied] == ["0002"]


def test_the_sample_migrations_apply(make_settings, tmp_path, db):
    settings = make_settings(tmp_path, migrations={"directory": str(REPOSITORY / "migrations")})
    assert [done.revision for done in up.up(settings).applied] == ["0001", "0002", "0003"]
    assert index_is_valid(db, "outbox_unpublished")
    db.execute("SELECT order_id, note FROM order_requests")
