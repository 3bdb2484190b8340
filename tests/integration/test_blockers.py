from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import psycopg
import pytest

from migrator.errors import Busy, UsageError
from migrator.migrations import up
from migrator.migrations.retry import HeldOff, Killed, Retry
from migrator.postgres import ledger
from migrator.postgres.locks import deployer_lock
from tests import revisions


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


@pytest.fixture
def altered(tmp_path, db):
    """Revision 0001 adds a column to a table that is there; returns the project's folder."""
    db.execute("CREATE TABLE held (a int)")
    revisions.chain(tmp_path, ("0001", 'op.execute("ALTER TABLE held ADD b int")', "SELECT 1;"))
    return tmp_path


@pytest.fixture
def session(database_url, role, db):
    """`session("reporting")`: an open session of an ordinary role, which may read and write."""
    db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    made = []

    def opened(application="reporting", **options):
        conn = psycopg.connect(database_url, user=role, application_name=application, **options)
        made.append(conn)
        return conn

    yield opened
    for conn in made:
        conn.close()


def has_column(db, name="b"):
    found = db.execute(
        "SELECT 1 FROM pg_attribute WHERE attrelid = 'held'::regclass AND attname = %s", (name,)
    )
    return found.fetchone() is not None


def first_of(kind, heard):
    return next(step for step in heard if isinstance(step, kind))


def test_a_retry_names_who_was_in_the_way(altered, settings, session, role):
    blocker = session()
    blocker.execute("SELECT count(*) FROM held")
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, Retry):
            blocker.rollback()

    up.up(settings, progress=progress)
    (seen,) = first_of(Retry, heard).blockers
    assert (seen.pid, seen.user) == (blocker.info.backend_pid, role)
    assert (seen.application, seen.client, seen.state) == (
        "reporting",
        "127.0.0.1",
        "idle in transaction",
    )
    assert (seen.relation, seen.modes) == ("held", ["AccessShareLock"])
    assert seen.query == "SELECT count(*) FROM held"
    assert seen.transaction_age_s > 0


def test_a_wait_too_short_to_be_watched_still_names_the_holder(altered, make_settings, session):
    settings = make_settings(altered, database={"lock_timeout_ms": 1})
    blocker = session()
    blocker.execute("LOCK TABLE held IN ROW EXCLUSIVE MODE")
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, Retry):
            blocker.rollback()

    up.up(settings, progress=progress)
    (seen,) = first_of(Retry, heard).blockers
    assert (seen.pid, seen.modes) == (blocker.info.backend_pid, ["RowExclusiveLock"])


def test_who_waits_for_a_row_is_told_who_holds_it(tmp_path, settings, session, db):
    db.execute("CREATE TABLE held (a int); INSERT INTO held VALUES (1)")
    update = ("0001", 'op.execute("UPDATE held SET a = 2")', "SELECT 1;")
    revisions.chain(tmp_path, update, phase="contract")
    db.execute("GRANT ALL ON held TO PUBLIC")
    blocker = session()
    blocker.execute("UPDATE held SET a = 3")
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, Retry):
            blocker.rollback()

    up.up(settings, progress=progress)
    (seen,) = first_of(Retry, heard).blockers
    assert (seen.pid, seen.relation) == (blocker.info.backend_pid, "a row")


def test_busy_names_the_blockers_in_the_message_and_for_programs(
    altered, make_settings, monkeypatch, session, cli
):
    make_settings(altered)
    monkeypatch.setenv("MIGRATOR_DATABASE_DEADLINE_S", "0.7")
    blocker = session("nightly report")
    blocker.execute("SELECT FROM held")
    pid = blocker.info.backend_pid
    result = cli("up")
    assert result.exit_code == 4
    line = f"in the way: session {pid} of "
    assert line in result.stderr
    assert "nightly report from 127.0.0.1 holds AccessShareLock on held" in result.stderr
    assert f"next: end {pid} or wait" in result.stderr
    assert f"  {line}" in result.stdout
    (seen,) = json.loads(cli("--json", "up").stdout)["data"]["blockers"]
    assert (seen["pid"], seen["application"]) == (pid, "nightly report")
    assert seen["modes"] == ["AccessShareLock"]


def test_a_query_that_names_a_password_is_not_shown(altered, make_settings, session):
    settings = make_settings(altered, database={"deadline_s": 0.1})
    blocker = session()
    blocker.execute("SELECT 'password: hunter2' FROM held")
    with pytest.raises(Busy) as caught:
        up.up(settings)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in json.dumps(caught.value.data)


def test_behind_a_long_transaction_nothing_is_asked_for_until_it_ends(
    altered, make_settings, session, db
):
    settings = make_settings(altered, database={"long_transaction_s": 0.001, "deadline_s": 5})
    blocker = session()
    blocker.execute("SELECT FROM held")
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, HeldOff):
            queue = (
                "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND NOT granted"
            )
            assert db.execute(queue).fetchone() == (0,)
            blocker.rollback()

    done = up.up(settings, progress=progress).applied[0]
    assert done.retries == 0
    assert not [step for step in heard if isinstance(step, Retry)]
    assert first_of(HeldOff, heard).blockers[0].pid == blocker.info.backend_pid
    assert has_column(db)


def test_a_long_transaction_that_holds_nothing_in_the_way_is_let_be(
    altered, make_settings, session, db
):
    settings = make_settings(altered, database={"long_transaction_s": 0.001})
    db.execute("CREATE TABLE other (a int); GRANT ALL ON other TO PUBLIC")
    session().execute("SELECT FROM other")
    heard = []
    up.up(settings, progress=heard.append)
    assert not [step for step in heard if isinstance(step, HeldOff | Retry)]


def test_a_long_transaction_on_a_partition_is_in_the_way_of_its_table(
    tmp_path, make_settings, session, db
):
    settings = make_settings(tmp_path, database={"long_transaction_s": 0.001, "deadline_s": 0.1})
    db.execute("CREATE TABLE held (a int) PARTITION BY LIST (a)")
    db.execute("CREATE TABLE held_1 PARTITION OF held FOR VALUES IN (1)")
    db.execute("GRANT ALL ON held_1 TO PUBLIC")
    revisions.chain(tmp_path, ("0001", 'op.execute("ALTER TABLE held ADD b int")', "SELECT 1;"))
    session().execute("SELECT FROM held_1")
    with pytest.raises(Busy, match="AccessShareLock on held_1"):
        up.up(settings)


def test_a_held_off_revision_is_busy_at_the_deadline_and_says_that_it_asked_for_nothing(
    altered, make_settings, session
):
    settings = make_settings(altered, database={"long_transaction_s": 0.001, "deadline_s": 0.1})
    session().execute("SELECT FROM held")
    with pytest.raises(Busy, match="waited for transactions that would have kept it") as caught:
        up.up(settings)
    assert len(caught.value.data["blockers"]) == 1


def test_an_index_build_waits_for_old_snapshots_before_it_begins(
    tmp_path, make_settings, session, db
):
    settings = make_settings(tmp_path, database={"long_transaction_s": 0.001})
    revisions.indexed(tmp_path)
    up.up(settings, to="0001")
    old = session(options="-c default_transaction_isolation=repeatable\\ read")
    old.execute("SELECT 1")
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, HeldOff):
            assert db.execute("SELECT to_regclass('t_a')").fetchone() == (None,)
            old.rollback()

    up.up(settings, progress=progress)
    (seen,) = first_of(HeldOff, heard).blockers
    assert (seen.pid, seen.relation) == (old.info.backend_pid, "its snapshot")


def test_a_prepared_transaction_in_the_way_is_named(altered, make_settings, session, db):
    if db.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        pytest.skip("the server takes no prepared transactions: max_prepared_transactions is 0")
    settings = make_settings(altered, database={"deadline_s": 0.1})
    db.execute("BEGIN; SELECT FROM held; PREPARE TRANSACTION 'forgotten'")
    try:
        with pytest.raises(Busy, match="prepared transaction forgotten holds AccessShareLock"):
            up.up(settings)
    finally:
        db.execute("ROLLBACK PREPARED 'forgotten'")


def test_lock_waits_and_retries_are_in_the_ledger(altered, settings, session, db):
    blocker = session()
    blocker.execute("SELECT FROM held")
    up.up(settings, progress=lambda step: isinstance(step, Retry) and blocker.rollback())
    entry = ledger.entries(db)[-1]
    assert entry.retries == 1
    assert entry.lock_wait_ms > 0
    assert entry.allowed is None


def test_a_revision_that_met_nobody_has_waited_for_nothing(altered, settings, db):
    up.up(settings)
    entry = ledger.entries(db)[-1]
    assert (entry.retries, entry.lock_wait_ms) == (0, 0)


def kill(settings, heard=None):
    heard = [] if heard is None else heard
    return up.up(settings, kill_blockers=True, reason="it hung", progress=heard.append)


@pytest.fixture
def impatient(altered, make_settings):
    """Every transaction is a long one."""
    return make_settings(altered, database={"long_transaction_s": 0.001})


def is_connected(conn):
    try:
        conn.rollback()
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_a_blocker_that_idles_is_cancelled_then_terminated_where_that_is_asked_for(
    impatient, session, db
):
    blocker = session()
    blocker.execute("SELECT FROM held")
    heard = []
    kill(impatient, heard)
    (ended,) = first_of(Killed, heard).ended
    assert (ended.how, ended.blocker.pid) == ("terminated", blocker.info.backend_pid)
    assert not is_connected(blocker)
    assert has_column(db)


@contextmanager
def running(conn, query):
    """The query runs in another thread."""
    failures = []

    def run():
        try:
            conn.execute(query)
        except psycopg.Error as exc:
            failures.append(exc)
            conn.rollback()

    thread = threading.Thread(target=run)
    thread.start()
    yield failures
    thread.join(30)


def test_a_blocker_that_works_is_cancelled_and_keeps_its_session(impatient, session, db):
    blocker = session()
    blocker.execute("SELECT FROM held")
    with running(blocker, "SELECT pg_sleep(600)") as failures:
        done = kill(impatient).applied[0]
    assert [one.how for one in done.ended] == ["cancelled"]
    assert isinstance(failures[0], psycopg.errors.QueryCanceled)
    assert is_connected(blocker)


def test_who_was_killed_is_in_the_output_the_json_and_the_ledger(
    impatient, session, db, cli, monkeypatch
):
    monkeypatch.setenv("MIGRATOR_DATABASE__LONG_TRANSACTION_S", "0.001")
    blocker = session()
    blocker.execute("SELECT FROM held")
    result = cli("--json", "up", "--kill-blockers", "--reason", "it hung since noon")
    assert f"0001 --kill-blockers: terminated session {blocker.info.backend_pid}" in result.stderr
    (ended,) = json.loads(result.stdout)["applied"][0]["ended"]
    assert (ended["pid"], ended["how"]) == (blocker.info.backend_pid, "terminated")
    entry = ledger.entries(db)[-1]
    assert (entry.allowed, entry.reason) == (["kill-blockers"], "it hung since noon")


def test_without_being_asked_nobody_is_killed(altered, make_settings, session, db):
    settings = make_settings(altered, database={"long_transaction_s": 0.001, "deadline_s": 0.5})
    blocker = session()
    blocker.execute("SELECT FROM held")
    with pytest.raises(Busy):
        up.up(settings)
    assert is_connected(blocker)


def test_a_superusers_session_is_never_killed(altered, make_settings, database_url):
    settings = make_settings(altered, database={"long_transaction_s": 0.001, "deadline_s": 0.5})
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT FROM held")
        heard = []
        with pytest.raises(Busy):
            kill(settings, heard)
        (ended,) = first_of(Killed, heard).ended
        assert (ended.how, ended.why) == ("spared", "it is a superuser's")
        assert is_connected(blocker)


def test_a_young_transaction_is_never_killed(altered, make_settings, session):
    settings = make_settings(altered, database={"long_transaction_s": 3600, "deadline_s": 0.7})
    blocker = session()
    blocker.execute("SELECT FROM held")
    with pytest.raises(Busy):
        kill(settings)
    assert is_connected(blocker)


def test_killing_needs_a_reason(impatient, cli):
    with pytest.raises(UsageError, match="needs a reason"):
        up.up(impatient, kill_blockers=True, reason=" ")
    assert cli("up", "--kill-blockers").exit_code == 2


def test_validating_a_constraint_has_the_timeout_of_what_blocks_nobody(tmp_path, make_settings, db):
    settings = make_settings(
        tmp_path,
        database={"statement_timeout_ms": 7000, "long_statement_timeout_ms": 9000},
    )
    # The check runs while the statement does, and so sees its timeout.
    db.execute(
        """CREATE TABLE seen (at text, timeout text);
           CREATE FUNCTION note(at text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen VALUES (at, current_setting('statement_timeout')); RETURN true; END $$;
           CREATE TABLE t (a int); INSERT INTO t VALUES (1);
           ALTER TABLE t ADD CONSTRAINT c CHECK (note('validate')) NOT VALID;"""
    )
    revisions.chain(
        tmp_path,
        (
            "0001",
            """
            op.execute("SELECT note('before')")
            op.execute("ALTER TABLE t VALIDATE CONSTRAINT c")
            op.execute("SELECT note('after')")
            """,
            "SELECT 1;",
        ),
        phase="contract",
    )
    up.up(settings)
    assert dict(db.execute("SELECT * FROM seen").fetchall()) == {
        "before": "7s",
        "validate": "9s",
        "after": "7s",
    }


def test_after_a_lock_that_blocks_others_the_usual_timeout_holds(tmp_path, make_settings, db):
    settings = make_settings(
        tmp_path,
        database={"statement_timeout_ms": 7000, "long_statement_timeout_ms": 9000},
    )
    db.execute(
        """CREATE TABLE seen (timeout text);
           CREATE FUNCTION note() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen VALUES (current_setting('statement_timeout')); RETURN true; END $$;
           CREATE TABLE t (a int); INSERT INTO t VALUES (1);"""
    )
    revisions.chain(
        tmp_path,
        (
            "0001",
            """
            op.execute("ALTER TABLE t ADD CONSTRAINT c CHECK (note()) NOT VALID")
            op.execute("ALTER TABLE t VALIDATE CONSTRAINT c")
            """,
            "SELECT 1;",
        ),
        phase="contract",
    )
    up.up(settings)
    assert db.execute("SELECT * FROM seen").fetchall() == [("7s",)]


def test_readers_go_on_reading_between_the_attempts(altered, make_settings, session, db):
    """Each attempt asks once, gives up after lock_timeout, and lets the readers behind it through."""
    settings = make_settings(altered, database={"lock_timeout_ms": 100})
    blocker, reader = session(), session("reader", autocommit=True)
    blocker.execute("SELECT FROM held")
    reads, attempts, reads_at = [0], [0], []
    ended = threading.Event()

    def read():
        while not ended.is_set():
            reader.execute("SELECT FROM held")
            reads[0] += 1

    def progress(step):
        if isinstance(step, Retry):
            reads_at.append(reads[0])
            attempts[0] += 1
            if attempts[0] == 4:
                blocker.rollback()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        up.up(settings, progress=progress)
    finally:
        ended.set()
        thread.join(30)
    assert attempts[0] == 4
    assert reads_at == sorted(set(reads_at)), "a pause in which nobody could read"
    assert has_column(db)


# Going back


@pytest.fixture
def undoable(tmp_path, settings, db):
    """Revision 0001 is applied; its rollback script needs a lock on table held."""
    db.execute("CREATE TABLE held (a int)")
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("ALTER TABLE held ADD b int")', "ALTER TABLE held DROP b;"),
    )
    up.up(settings)
    return settings


def test_a_rollback_shows_its_retries_and_who_was_in_the_way(
    undoable, cli, session, db, monkeypatch
):
    monkeypatch.setenv("MIGRATOR_DATABASE__LOCK_TIMEOUT_MS", "20")
    monkeypatch.setenv("MIGRATOR_DATABASE__DEADLINE_S", "1")
    blocker = session()
    blocker.execute("SELECT FROM held")
    result = cli("rollback", "--reason", "it was wrong", "--yes")
    assert result.exit_code == Busy.exit_code
    assert "0001 met a lock: canceling statement due to lock timeout; retry 1" in result.stdout
    assert f"  in the way: session {blocker.info.backend_pid}" in result.stdout
    assert has_column(db)


def test_a_rollback_shows_that_it_holds_off_behind_a_long_transaction(
    undoable, cli, session, db, monkeypatch
):
    monkeypatch.setenv("MIGRATOR_DATABASE__LONG_TRANSACTION_S", "0.001")
    monkeypatch.setenv("MIGRATOR_DATABASE__DEADLINE_S", "0.5")
    blocker = session()
    blocker.execute("SELECT FROM held")
    result = cli("rollback", "--reason", "it was wrong", "--yes")
    assert result.exit_code == Busy.exit_code
    assert "0001 waits before it asks for its locks" in result.stdout
    assert f"  in the way: session {blocker.info.backend_pid}" in result.stdout
    assert has_column(db)


def test_a_rollback_shows_the_run_that_it_waits_for(undoable, cli, monkeypatch):
    monkeypatch.setenv("MIGRATOR_DATABASE__DEADLINE_S", "0.5")
    with deployer_lock(undoable, "deploy"):
        result = cli("rollback", "--reason", "it was wrong", "--yes")
    assert result.exit_code == Busy.exit_code
    assert "waiting for another run to end:" in result.stdout
