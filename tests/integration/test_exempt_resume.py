"""An exempt revision that commits on its way, and is interrupted: the next run goes on behind it."""

from __future__ import annotations

import re
import signal
import time

import pytest

from migrator.errors import MigratorError, Refused
from migrator.migrations import up
from migrator.migrations.pieces import Resumed
from migrator.postgres import ledger
from tests import revisions

SEVERAL = """
op.execute("CREATE TABLE t (a int)")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)")
    op.execute("INSERT INTO t VALUES (1)")
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t ((a + 1))")
op.execute("ALTER TABLE t ADD COLUMN b int")
op.get_bind().commit()
op.execute("INSERT INTO t VALUES (2)")
op.execute("COMMIT")
op.execute("INSERT INTO t VALUES (3)")
"""
FREEZE = """
    CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
    CREATE TRIGGER hold_here BEFORE {what} ON migrator.{table}
    FOR EACH ROW {when} EXECUTE FUNCTION hold_here()
"""


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path, migrations={"rules_from": "0002"})


@pytest.fixture
def exempt(tmp_path, settings):
    """`exempt(upgrade)`: write 0001, which is exempt, below 0002, which is not; gives the settings."""
    (tmp_path / "migrator.toml").write_text('[migrations]\nrules_from = "0002"\n')
    revisions.write(tmp_path, "0002", revises="0001")

    def write(upgrade):
        revisions.write(tmp_path, "0001", upgrade, rollback=None, head="")
        return settings

    return write


def await_(condition, what: str, *, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


def frozen(db) -> bool:
    found = db.execute(
        """SELECT count(*) FROM pg_stat_activity
           WHERE wait_event = 'PgSleep' AND datname = current_database()"""
    )
    return found.fetchone()[0] > 0


def notes(db):
    found = db.execute("SELECT position, is_committed FROM migrator.committed ORDER BY position")
    return found.fetchall()


def is_valid(db, index):
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
    return db.execute(query, (index,)).fetchone()


def interrupted(db, settings, statement):
    """Run until `statement`, which fails, and give the error."""
    with pytest.raises(MigratorError) as caught:
        up.up(settings)
    assert statement in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("table", "what", "position"),
    [
        *(("committed", "INSERT", position) for position in range(1, 7)),
        *(("committed", "UPDATE", position) for position in (2, 4)),
        ("ledger", "INSERT", None),
    ],
)
def test_killed_there_the_same_command_finishes_and_does_nothing_twice(
    exempt, start_up, db, table, what, position
):
    settings = exempt(SEVERAL)
    ledger.ensure(db)
    when = "" if position is None else f"WHEN (NEW.position = {position})"
    db.execute(FREEZE.format(table=table, what=what, when=when))
    running = start_up()
    await_(lambda: frozen(db), "the run at that step")
    running.send_signal(signal.SIGKILL)
    running.communicate()
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION hold_here() CASCADE")
    assert up.up(settings).version == "0002"
    assert db.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,), (3,)]
    assert (is_valid(db, "t_a"), is_valid(db, "t_b")) == ((True,), (True,))
    assert [entry.subject for entry in ledger.entries(db)] == ["0001", "0002"]
    assert notes(db) == []


def test_the_hash_of_what_was_sent_is_the_same_after_an_interruption(exempt, db):
    text = 'op.execute("CREATE TABLE t (a int)")\nop.execute("COMMIT")\nop.execute("{}")'
    settings = exempt(text.format("SELECT 1/(SELECT count(*) FROM wanted)"))
    db.execute("CREATE TABLE wanted (a int)")
    interrupted(db, settings, "division by zero")
    db.execute("INSERT INTO wanted VALUES (1)")
    up.up(settings, to="0001")
    resumed = ledger.entries(db)[0].sql_hash
    from migrator.migrations import normalise

    sent = ["CREATE TABLE t (a int)", "COMMIT", "SELECT 1/(SELECT count(*) FROM wanted)"]
    assert resumed == normalise.sql_hash(sent)


def test_a_failure_says_which_statements_stay_committed(exempt, db):
    settings = exempt(
        """
        op.execute("CREATE TABLE t (a int)")
        with op.get_context().autocommit_block():
            op.execute("INSERT INTO t VALUES (1)")
            op.execute("INSERT INTO not_there VALUES (1)")
        """
    )
    failure = interrupted(db, settings, "not_there")
    assert (
        "of 0001 these statements stay committed, and the next run goes on behind them:\n"
        "  1: CREATE TABLE t (a int)\n  2: INSERT INTO t VALUES (1)" in failure.found
    )
    assert failure.data["committed"][1] == "2: INSERT INTO t VALUES (1)"


def test_what_failed_can_be_corrected_and_the_next_run_goes_on_there_and_says_so(exempt, db):
    text = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE t (a int)")
            op.execute("INSERT INTO t VALUES ({})")
        """
    interrupted(db, exempt(text.format("'x'")), "invalid input syntax")
    heard = []
    up.up(exempt(text.format("1")), progress=heard.append)
    (resumed,) = (step for step in heard if isinstance(step, Resumed))
    assert resumed == Resumed("0001", ("1: CREATE TABLE t (a int)",))
    assert db.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_committed_statement_that_is_another_now_is_refused_until_it_is_restored(exempt, db):
    text = """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE {} (a int)")
            op.execute("{}")
        """
    interrupted(db, exempt(text.format("t", "SELECT 1/0")), "division by zero")
    with pytest.raises(
        Refused, match="statement 1 is another one now: CREATE TABLE other"
    ) as caught:
        up.up(exempt(text.format("other", "SELECT 1")))
    assert "1: CREATE TABLE t (a int)" in caught.value.found
    assert db.execute("SELECT to_regclass('other')").fetchone() == (None,)
    up.up(exempt(text.format("t", "SELECT 1")))


def test_parameters_that_differ_are_another_statement(exempt, db):
    text = """
        import uuid
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE IF NOT EXISTS t (a text)")
            op.execute(sa.text("INSERT INTO t VALUES (:a)").bindparams(a=str(uuid.uuid4())))
            op.execute("SELECT 1/0")
        """
    interrupted(db, exempt(text), "division by zero")
    with pytest.raises(Refused, match="statement 2 is another one now"):
        up.up(exempt(text))
    assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_less_than_was_committed_is_refused(exempt, db):
    interrupted(
        db,
        exempt('op.execute("CREATE TABLE t (a int)")\nop.execute("COMMIT")\n1/0'),
        "ZeroDivision",
    )
    with pytest.raises(Refused, match="now it sends only 0"):
        up.up(exempt("pass"))


def test_an_invalid_index_is_dropped_and_built_anew(exempt, db):
    settings = exempt(
        """
        op.execute("CREATE TABLE t (a int)")
        op.execute("INSERT INTO t VALUES (1), (1)")
        with op.get_context().autocommit_block():
            op.execute("CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
        """
    )
    interrupted(db, settings, "could not create unique index")
    assert is_valid(db, "t_a") == (False,)
    db.execute("DELETE FROM t")
    up.up(settings)
    assert is_valid(db, "t_a") == (True,)


CALLED = """
with op.get_context().autocommit_block():
    op.execute("CALL counted()")
    op.execute("INSERT INTO counts VALUES (7)")
"""


@pytest.mark.parametrize("done", [True, False])
def test_what_may_or_may_not_be_done_is_asked_about_and_the_answer_is_taken(
    exempt, start_up, db, done
):
    settings = exempt(CALLED)
    db.execute("CREATE TABLE counts (a int)")
    db.execute(
        "CREATE PROCEDURE counted() LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO counts VALUES (1); COMMIT; PERFORM pg_sleep(600); END'"
    )
    running = start_up()
    await_(lambda: frozen(db), "the procedure")
    running.send_signal(signal.SIGKILL)
    running.communicate()
    await_(lambda: not frozen(db), "the killed run's session at its end")
    with pytest.raises(Refused, match="may or may not have done its work") as caught:
        up.up(settings)
    assert "1: CALL counted() (sent; whether it is committed is not known)" in caught.value.found
    answers = re.findall(r"((?:UPDATE|DELETE) .*?position = 1)\b", caught.value.next_step)
    db.execute(
        "CREATE OR REPLACE PROCEDURE counted() LANGUAGE sql AS 'INSERT INTO counts VALUES (2)'"
    )
    db.execute(answers[0] if done else answers[1])
    up.up(settings)
    assert db.execute("SELECT a FROM counts").fetchall() == [(1,), *([] if done else [(2,)]), (7,)]


def test_a_select_that_writes_is_not_repeated(exempt, db):
    db.execute("CREATE SEQUENCE s")
    settings = exempt(
        """
        op.execute("SELECT nextval('s')")
        op.execute("CREATE TABLE t (a int)")
        op.execute("COMMIT")
        op.execute("SELECT 1/0")
        """
    )
    interrupted(db, settings, "division by zero")
    with pytest.raises(Refused, match="a SELECT between them writes"):
        up.up(settings)
    assert db.execute("SELECT last_value FROM s").fetchone() == (1,)


@pytest.mark.parametrize(
    "body",
    [
        'op.get_bind().execute(sa.text("INSERT INTO t VALUES (1) RETURNING a")).scalar()',
        'op.execute("CREATE TEMP TABLE u (a int)")',
        'op.execute("CREATE TEMP TABLE u AS SELECT 1 AS a")',
    ],
)
def test_what_went_with_the_session_is_refused(exempt, db, body):
    db.execute("CREATE TABLE t (a int)")
    settings = exempt(f'{body}\nop.execute("COMMIT")\nop.execute("SELECT 1/0")')
    interrupted(db, settings, "division by zero")
    with pytest.raises(Refused, match="to a session that is gone"):
        up.up(settings)


def test_what_is_rolled_back_to_a_savepoint_is_not_taken_for_committed(exempt, db):
    settings = exempt(
        """
        try:
            with op.get_bind().begin_nested():
                op.execute("CREATE TABLE t (a int)")
                raise KeyError
        except KeyError:
            op.execute("CREATE TABLE u (a int)")
        op.execute("COMMIT")
        op.execute("SELECT 1/0")
        """
    )
    interrupted(db, settings, "division by zero")
    with pytest.raises(Refused, match="to a savepoint"):
        up.up(settings)


def test_each_statement_has_the_timeout_of_its_class(exempt, make_settings, tmp_path, db):
    db.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    db.execute(
        "CREATE FUNCTION slow(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.6); RETURN a; END'"
    )
    exempt(
        """
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY t_a ON t (slow(a))")
            op.execute("CREATE TABLE u AS SELECT slow(1)")
        """
    )
    settings = make_settings(
        tmp_path, database={"statement_timeout_ms": 500}, migrations={"rules_from": "0002"}
    )
    failure = interrupted(db, settings, "statement timeout")
    assert "in: CREATE TABLE u" in failure.found
    assert is_valid(db, "t_a") == (True,)


def test_a_lock_that_is_met_after_a_commit_repeats_only_what_is_left(exempt, database_url, db):
    import psycopg

    from migrator.migrations.retry import Retry

    db.execute("CREATE TABLE held (a int)")
    settings = exempt(
        """
        op.execute("CREATE TABLE t (a int)")
        op.execute("COMMIT")
        op.execute("ALTER TABLE held ADD b int")
        """
    )
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT FROM held")

        def progress(step):
            if isinstance(step, Retry):
                blocker.rollback()

        assert up.up(settings, progress=progress).applied[0].retries == 1
