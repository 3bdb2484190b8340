from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from migrator import backfill
from migrator.errors import Busy, MigratorError, Refused, UsageError
from migrator.migrations import keyset, undo, up
from migrator.migrations.backfill import Backfill
from migrator.migrations.pages import Filled, Filling
from migrator.migrations.retry import Retry
from migrator.postgres import ledger
from tests import revisions

ROWS = 100
TABLE = f"""
    CREATE TABLE orders (order_id bigint PRIMARY KEY, note text, touched int NOT NULL DEFAULT 0);
    INSERT INTO orders (order_id) SELECT n * 3 FROM generate_series(1, {ROWS}) AS n;
"""
FILL = """
from migrator import backfill
backfill("orders", set={"note": "'n' || order_id", "touched": "touched + 1"}, where="note IS NULL",
         batch=10, max_lock_waiters=None)
"""
QUIET = {"max_lock_waiters": None, "max_active": None}


@pytest.fixture
def settings(tmp_path, make_settings, db):
    db.execute(TABLE)
    return make_settings(tmp_path)


@pytest.fixture
def project(tmp_path, settings):
    """A project with one revision, which is a backfill."""
    revisions.write(tmp_path, "0001", FILL, head='phase = "contract"')
    return tmp_path


def fill(settings, **asked):
    given = {"set": {"note": "'x'", "touched": "touched + 1"}, "where": "note IS NULL"} | QUIET
    return backfill("orders", **given | asked, settings=settings)


def touched(db) -> dict[int, int]:
    """How many rows were updated how often."""
    return dict(db.execute("SELECT touched, count(*) FROM orders GROUP BY 1").fetchall())


def state(db) -> tuple:
    query = """SELECT rows_done, last_key, finished_at IS NOT NULL FROM migrator.backfill
               ORDER BY backfill DESC LIMIT 1"""
    return db.execute(query).fetchone()


def fail_at(db, key: int) -> None:
    """Let the page with this key fail."""
    db.execute(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'not this one'; END$$;
            CREATE TRIGGER refuse BEFORE UPDATE ON orders FOR EACH ROW
            WHEN (new.order_id = {key}) EXECUTE FUNCTION refuse()"""
    )


# In a revision


def test_a_revision_fills_all_rows_in_pages_and_is_recorded(project, settings, db):
    heard = []
    outcome = up.up(settings, progress=heard.append)
    assert [done.revision for done in outcome.applied] == ["0001"]
    assert touched(db) == {1: ROWS}
    assert len([step for step in heard if isinstance(step, Filling)]) > 3
    assert [entry.subject for entry in ledger.entries(db)] == ["0001"]
    assert state(db) == (ROWS, [str(ROWS * 3)], True)


def test_each_page_is_a_transaction_of_its_own(project, settings, db):
    up.up(settings)
    transactions, largest = db.execute(
        "SELECT count(*), max(rows) FROM (SELECT count(*) AS rows FROM orders GROUP BY xmin::text) x"
    ).fetchone()
    assert transactions > 2
    assert largest < ROWS


def test_after_a_failed_page_those_before_it_stay_and_the_same_command_goes_on(
    project, settings, db
):
    fail_at(db, 150)
    with pytest.raises(MigratorError, match="not this one") as caught:
        up.up(settings)
    assert "stay; of this page nothing is left" in caught.value.found
    done = touched(db)[1]
    assert 0 < done < ROWS
    assert state(db)[0] == done
    assert ledger.entries(db) == []
    db.execute("DROP TRIGGER refuse ON orders")
    assert up.up(settings).version == "0001"
    assert touched(db) == {1: ROWS}


def test_it_goes_on_after_the_last_key_and_does_not_begin_anew(project, settings, db):
    fail_at(db, 150)
    with pytest.raises(MigratorError):
        up.up(settings)
    last = int(state(db)[1][0])
    db.execute("DROP TRIGGER refuse ON orders")
    heard = []
    up.up(settings, progress=heard.append)
    first = next(step for step in heard if isinstance(step, Filling))
    assert first.rows_read > last // 3


HOLD_KEY = """
    CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_advisory_xact_lock(42); RETURN new; END$$;
    CREATE TRIGGER hold BEFORE UPDATE ON migrator.backfill FOR EACH ROW
    WHEN (new.rows_done > 20) EXECUTE FUNCTION hold_here()
"""


@pytest.mark.parametrize("at", ["a page", "its key", "the stamp"])
def test_killed_anywhere_the_same_command_goes_on_and_no_row_is_updated_twice(
    project, settings, db, database_url, at
):
    up_command = [sys.executable, "-m", "migrator", "up"]
    with psycopg.connect(database_url) as blocker:
        if at == "a page":
            blocker.execute("SELECT FROM orders WHERE order_id = 150 FOR UPDATE")
            application = "migrator backfill"
        elif at == "its key":
            ledger.ensure(db)
            db.execute(HOLD_KEY)
            blocker.execute("SELECT pg_advisory_lock(42)")
            application = "migrator backfill"
        else:
            blocker.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
            blocker.commit()
            blocker.execute("LOCK TABLE alembic_version IN SHARE MODE")
            application = "migrator up"
        with subprocess.Popen(
            up_command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            await_(lambda: sessions(db, application, "wait_event_type = 'Lock'"), "a lock wait")
            running.send_signal(signal.SIGKILL)
            await_(lambda: not sessions(db, application), "the killed run's session at its end")
        blocker.execute("SELECT pg_advisory_unlock_all()")
    assert ledger.exists(db)
    assert ledger.entries(db) == []
    assert 0 < touched(db)[1] <= ROWS
    assert up.up(settings).version == "0001"
    assert touched(db) == {1: ROWS}
    assert state(db)[0] == ROWS


def sessions(db, application: str, condition: str = "true") -> int:
    query = f"""SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND application_name = %s AND {condition}"""
    return db.execute(query, (application,)).fetchone()[0]


def await_(condition, what: str, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


def test_a_run_that_has_lost_its_lock_commits_no_page(project, settings, db):
    def steal(step):
        if isinstance(step, Filling):
            db.execute("UPDATE migrator.deployer SET epoch = epoch + 1")

    with pytest.raises(Busy, match="was lost"):
        up.up(settings, progress=steal)
    assert touched(db)[1] == 10


def test_undone_and_applied_again_it_fills_again(project, settings, db):
    (project / "migrations/rollback/0001.sql").write_text("UPDATE orders SET note = NULL;")
    up.up(settings)
    (entry,) = ledger.entries(db)
    undo_newest(settings, entry)
    up.up(settings)
    assert touched(db) == {2: ROWS}


def undo_newest(settings, entry) -> None:
    from migrator.postgres.locks import deployer_lock

    with deployer_lock(settings, "deploy") as fence:
        undo.undo_revision(settings, entry, reason="test", run=entry.run, fence=fence)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('op.execute("SELECT 1")\n' + FILL.strip(), "and beside it: SELECT 1"),
        (FILL.strip() * 1 + "\n" + FILL.strip(), "calls 2 backfill"),
        ("from migrator import backfill\nif False:\n    backfill('orders')", "calls no backfill"),
        ("from migrator import backfill\nbackfill('orders')", "either set= or sql="),
        (
            "from migrator import backfill\nop.get_bind().execute(1)\nbackfill('o')",
            "cannot be read beforehand",
        ),
    ],
)
def test_a_revision_that_holds_anything_else_is_refused_before_anything_is_applied(
    tmp_path, settings, db, body, said
):
    revisions.write(tmp_path, "0001", 'op.execute("CREATE TABLE first (a int)")')
    revisions.write(tmp_path, "0002", body, revises="0001", head='phase = "contract"')
    with pytest.raises(Refused) as caught:
        up.up(settings)
    assert said in caught.value.found
    assert db.execute("SELECT to_regclass('first')").fetchone() == (None,)


def test_a_backfill_under_another_name_is_refused_when_it_is_met(tmp_path, settings, db):
    revisions.write(
        tmp_path, "0001", head='phase = "contract"', upgrade="import migrator\ngetattr(migrator, 'back' + 'fill')('orders', sql='"
        "UPDATE orders SET touched = 1 WHERE order_id BETWEEN :low AND :high')"
    )  # fmt: skip
    with pytest.raises(Refused, match="where migrator does not run it page by page"):
        up.up(settings)
    assert touched(db) == {0: ROWS}


def test_a_dry_run_shows_the_first_page_and_the_estimate_and_changes_nothing(project, cli, db):
    db.execute("ANALYZE orders")
    shown = cli("up", "--dry-run").stdout
    assert "rows: about 100; first page, of 10 rows" in shown
    assert """WHERE "order_id" >= '3'::bigint AND "order_id" <= '30'::bigint""" in shown
    assert touched(db) == {0: ROWS}
    assert not ledger.exists(db)


def test_a_dry_run_before_the_table_exists_shows_the_statement(tmp_path, make_settings, cli):
    make_settings(tmp_path)
    revisions.write(tmp_path, "0001", FILL, head='phase = "contract"')
    assert "the table is not there yet" in cli("up", "--dry-run").stdout


def test_up_prints_how_far_it_is(project, cli):
    result = cli("up")
    assert "0001 fills orders: 10 rows set, 10 read" in result.stdout
    assert "0001 applied in" in result.stdout


def test_with_json_the_progress_is_on_stderr(project, cli):
    result = cli("--json", "up")
    assert json.loads(result.stdout)["version"] == "0001"
    assert "0001 fills orders" in result.stderr


# As a library call


def test_a_call_fills_and_says_how_much(settings, db):
    filled = fill(settings)
    assert (filled.rows_done, filled.passes) == (ROWS, 2)
    assert touched(db) == {1: ROWS}
    assert state(db)[2]


def test_only_the_rows_that_match_are_updated(settings, db):
    db.execute("UPDATE orders SET note = '' WHERE order_id % 2 = 0")
    assert fill(settings, batch=7).rows_done == ROWS // 2
    assert touched(db) == {0: ROWS // 2, 1: ROWS // 2}


def test_the_same_call_again_finds_nothing(settings, db):
    fill(settings)
    assert fill(settings).rows_done == 0
    assert touched(db) == {1: ROWS}


def test_rows_that_come_in_behind_the_last_key_are_found_by_a_further_pass(settings, db):
    heard = []

    def insert_behind(step):
        if not heard:
            db.execute("INSERT INTO orders (order_id) VALUES (1)")
        heard.append(step)

    filled = fill(settings, batch=10, progress=insert_behind)
    assert filled.rows_done == ROWS + 1
    assert db.execute("SELECT count(*) FROM orders WHERE note IS NULL").fetchone() == (0,)


def test_rows_that_never_stop_coming_end_it_with_a_message(settings, db):
    def insert_behind(step):
        db.execute("INSERT INTO orders (order_id) SELECT min(order_id) - 1 FROM orders")

    with pytest.raises(MigratorError, match="new ones keep coming"):
        fill(settings, batch=100, progress=insert_behind)


def test_without_a_condition_it_goes_to_the_last_key_of_its_beginning(settings, db):
    def insert_ahead(step):
        db.execute("INSERT INTO orders (order_id) SELECT max(order_id) + 1 FROM orders")

    filled = fill(
        settings, batch=10, where=None, set={"touched": "touched + 1"}, progress=insert_ahead
    )
    assert (filled.rows_done, filled.passes) == (ROWS, 1)
    assert touched(db)[1] == ROWS


def test_a_condition_that_still_holds_after_the_update_is_refused(settings, db):
    with pytest.raises(Refused, match="still match where: touched >= 0"):
        fill(settings, where="touched >= 0")
    assert touched(db) == {0: ROWS}


def test_a_whole_statement_with_bounds_runs_in_pages(settings, db):
    filled = fill(
        settings,
        batch=10,
        set=None,
        where=None,
        sql="UPDATE orders SET touched = touched + 1, note = ':low' -- :high\n"
        "WHERE order_id BETWEEN :low AND :high",
    )
    assert filled.rows_done == ROWS
    assert touched(db) == {1: ROWS}
    assert db.execute("SELECT DISTINCT note FROM orders").fetchall() == [(":low",)]


def test_percent_signs_and_colons_in_sql_are_taken_as_they_are(settings, db):
    fill(settings, set={"note": "'50 % :x {} ' || (7 % 4)::text"})
    assert db.execute("SELECT DISTINCT note FROM orders").fetchall() == [("50 % :x {} 3",)]


def test_an_empty_table_is_filled_at_once(settings, db):
    db.execute("TRUNCATE orders")
    assert fill(settings).rows_done == 0


def test_a_table_and_its_columns_are_named_as_written(settings, db):
    db.execute(
        """CREATE SCHEMA "My"; CREATE TABLE "My"."select" ("Id" int PRIMARY KEY, "a b" int);
           INSERT INTO "My"."select" VALUES (1), (2)"""
    )
    backfill("My.select", set={"a b": '"Id" * 2'}, where='"a b" IS NULL', settings=settings)
    assert db.execute('SELECT "a b" FROM "My"."select" ORDER BY 1').fetchall() == [(2,), (4,)]


def test_a_partitioned_table_is_filled_through_its_parent(settings, db):
    db.execute(
        """CREATE TABLE p (a int, b text, c int, PRIMARY KEY (a, b)) PARTITION BY LIST (a);
           CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
           CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
           INSERT INTO p SELECT 1 + n % 2, 'k' || n FROM generate_series(1, 50) n; ANALYZE p"""
    )
    filled = backfill("p", set={"c": "a"}, where="c IS NULL", batch=7, settings=settings)
    assert filled.rows_done == 50
    aim = keyset.target(db, Backfill(table="p", assignments=(("c", "a"),)))
    assert aim.rows_estimated == 50


def test_a_changed_declaration_is_refused_once_rows_were_gone_over(settings, db):
    fail_at(db, 150)
    with pytest.raises(MigratorError):
        fill(settings, batch=10, name="notes")
    with pytest.raises(Refused, match="with another declaration") as caught:
        fill(settings, batch=10, name="notes", set={"note": "'y'"})
    statement = caught.value.next_step.partition("psql has run: ")[2]
    db.execute("DROP TRIGGER refuse ON orders")
    db.execute(statement)
    assert fill(settings, name="notes", set={"note": "'y'"}).rows_done > 0


def test_a_changed_declaration_is_taken_where_nothing_was_done(settings, db):
    with pytest.raises(MigratorError):
        fill(settings, name="notes", set={"note": "nonsense"})
    assert fill(settings, name="notes").rows_done == ROWS


def test_another_pace_is_no_other_declaration(settings, db):
    fail_at(db, 150)
    with pytest.raises(MigratorError):
        fill(settings, batch=10)
    db.execute("DROP TRIGGER refuse ON orders")
    fill(settings, batch=20, target_ms=500, max_rows_per_s=1e6)
    assert touched(db) == {1: ROWS}


def test_a_row_that_is_locked_for_a_while_is_waited_for(tmp_path, make_settings, db, database_url):
    db.execute(TABLE)
    settings = make_settings(tmp_path, database={"lock_timeout_ms": 20})
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT FROM orders WHERE order_id = 150 FOR UPDATE")
        heard = []

        def release(step):
            heard.append(step)
            if isinstance(step, Retry):
                blocker.rollback()

        fill(settings, batch=10, progress=release)
    assert any(isinstance(step, Retry) for step in heard)
    assert touched(db) == {1: ROWS}


def test_a_row_that_stays_locked_is_busy_and_the_rows_before_it_stay(
    tmp_path, make_settings, db, database_url
):
    db.execute(TABLE)
    settings = make_settings(tmp_path, database={"lock_timeout_ms": 20, "deadline_s": 0.3})
    with psycopg.connect(database_url) as blocker:
        blocker.execute("SELECT FROM orders WHERE order_id = 150 FOR UPDATE")
        with pytest.raises(Busy, match="gave up after"):
            fill(settings, batch=10)
    assert touched(db)[1] > 0


def test_a_page_that_takes_too_long_is_halved(tmp_path, make_settings, db):
    db.execute(TABLE)
    settings = make_settings(tmp_path, database={"statement_timeout_ms": 500})
    heard = []
    db.execute("DELETE FROM orders WHERE order_id > 60")
    fill(
        settings,
        batch=20,
        set={"note": "'x' || pg_sleep(0.04)", "touched": "touched + 1"},
        progress=heard.append,
    )
    assert heard[0].rows_read == 10
    assert touched(db) == {1: 20}


@contextmanager
def somebody_waits(db, database_url):
    """For the block, or until the holder lets go, one session waits for another's lock."""
    db.execute("CREATE TABLE held ()")

    def wait():
        with psycopg.connect(database_url) as waiter:
            waiter.execute("LOCK TABLE held")

    waiting = threading.Thread(target=wait)
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE held")
        waiting.start()
        await_(lambda: sessions(db, "", "wait_event_type = 'Lock'"), "a waiter")
        yield holder
    waiting.join()


def test_it_pauses_while_others_wait_for_locks_and_then_goes_on(settings, db, database_url):
    heard = []
    with somebody_waits(db, database_url) as holder:

        def release(step):
            heard.append(step)
            holder.rollback()

        fill(settings, max_lock_waiters=0, progress=release)
    assert heard[0].paused == "1 session waits for locks"
    assert heard[-1].paused is None
    assert touched(db) == {1: ROWS}


def test_a_pause_that_lasts_until_the_deadline_is_busy(tmp_path, make_settings, db, database_url):
    db.execute(TABLE)
    settings = make_settings(tmp_path, database={"deadline_s": 0.1})
    with (
        somebody_waits(db, database_url),
        pytest.raises(Busy, match="was paused until the deadline: 1 session waits for locks"),
    ):
        fill(settings, max_lock_waiters=0)
    assert touched(db) == {0: ROWS}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"key": "note"}, "no unique key (note) over not-null columns"),
        ({"key": ["order_id", "note"]}, "no unique key (order_id, note)"),
    ],
)
def test_a_key_that_does_not_do_is_refused_with_those_that_would(settings, asked, said):
    with pytest.raises(Refused) as caught:
        fill(settings, **asked, set={"touched": "1"}, where="touched = 0")
    assert said in caught.value.found
    assert "the table has: order_id" in caught.value.expected


def test_a_table_that_is_not_there_is_refused(settings):
    with pytest.raises(Refused, match="there is no such table"):
        backfill("nowhere", set={"a": "1"}, settings=settings)


@pytest.mark.parametrize(
    "asked",
    [
        {"set": None},
        {"sql": "UPDATE orders SET note = 1"},
        {"set": None, "where": None, "sql": "UPDATE orders SET note = 1 WHERE order_id > :low"},
        {"set": None, "sql": "UPDATE orders SET note = 1 WHERE order_id BETWEEN :low AND :high"},
        {"set": None, "where": None, "sql": "SELECT FROM orders WHERE order_id IN (:low, :high)"},
        {"where": "true; DROP TABLE orders"},
        {"where": "note IS"},
        {"set": {"order_id": "1"}, "key": "order_id"},
        {"batch": 0},
        {"max_rows_per_s": -1},
        {"target_ms": 0},
    ],
)
def test_a_declaration_that_makes_no_backfill_is_refused(settings, db, asked):
    with pytest.raises(UsageError):
        fill(settings, **asked)
    assert touched(db) == {0: ROWS}


KEYS = {
    "integer": ("int", lambda n: n - 50),
    "text": ("text", lambda n: f"k'{n}\\\" é{n % 7}"),
    "timestamptz": ("timestamptz", lambda n: f"2026-01-{1 + n % 28} {n % 24}:00:00.{n:06}+02"),
    "numeric": ("numeric(12,4)", lambda n: n / 8 - 3),
    "uuid": ("uuid", lambda n: f"{n * 7919 % 65536:04x}0000-0000-4000-8000-0000000000{n:02x}"),
    "bytea": ("bytea", lambda n: bytes([n % 256, 255 - n % 256])),
    "date": ("date", lambda n: f"20{n:02}-03-04"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_type_of_key_cuts_pages_that_miss_no_row(settings, db, kind):
    type_, value = KEYS[kind]
    db.execute("ALTER DATABASE CURRENT SET datestyle = 'SQL, DMY'".replace("CURRENT", dbname(db)))
    db.execute(f"CREATE TABLE keyed (k {type_} PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO keyed (k) VALUES (%s)", [(value(n),) for n in range(60)])
    backfill("keyed", set={"n": "n + 1"}, batch=7, target_ms=1, settings=settings)
    assert db.execute("SELECT n, count(*) FROM keyed GROUP BY n").fetchall() == [(1, 60)]


def dbname(db) -> str:
    return db.info.dbname


@given(
    keys=st.sets(st.tuples(st.integers(-5, 5), st.text("aBé'% :", max_size=3)), max_size=30),
    dropped=st.integers(0, 5),
    batch=st.integers(1, 12),
)
@examples(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pages_over_several_columns_do_what_one_update_does(settings, db, keys, dropped, batch):
    db.execute("DROP TABLE IF EXISTS paged, whole")
    db.execute("CREATE TABLE paged (a int, b text, c text, PRIMARY KEY (a, b))")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO paged (a, b) VALUES (%s, %s)", list(keys))
    db.execute(f"UPDATE paged SET c = 'kept' WHERE a = {dropped}")
    db.execute("CREATE TABLE whole AS TABLE paged")
    expression, where = "coalesce(c, '') || a || b", "c IS NULL AND a > -3"
    db.execute(f"UPDATE whole SET c = {expression} WHERE {where}")
    backfill("paged", set={"c": expression}, where=where, batch=batch, settings=settings, **QUIET)
    query = "SELECT * FROM {} ORDER BY a, b, c"
    assert db.execute(query.format("paged")).fetchall() == (
        db.execute(query.format("whole")).fetchall()
    )


def test_a_library_call_of_that_name_waits_for_the_other(tmp_path, make_settings, db):
    db.execute(TABLE)
    settings = make_settings(tmp_path, database={"deadline_s": 0.1})

    def second(step):
        with pytest.raises(Busy, match="another run holds the lock 'backfill notes'"):
            fill(settings, name="notes")

    assert fill(settings, name="notes", progress=second) == Filled("notes", "orders", ROWS, 2)
