from __future__ import annotations

import subprocess
import sys
import time

import psycopg
import pytest

from migrator.errors import Busy, Refused
from migrator.postgres import heartbeat, ledger
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock

HOLD = """
import sys
from pathlib import Path
from migrator.postgres.locks import deployer_lock
from migrator.settings import load
with deployer_lock(load(), "deploy") as fence:
    print(fence.epoch, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


@pytest.fixture
def holder(settings):
    """Another process that holds the lock until it is told to end, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_that_is_held_until_the_deadline_is_busy_and_names_the_holder(settings, holder):
    with (
        pytest.raises(Busy, match="another run holds the lock 'deploy'") as caught,
        deployer_lock(settings, "deploy", deadline_s=0.2),
    ):
        pytest.fail("two hold it")
    assert f"process {holder.pid}" in caught.value.data["holder"]


def test_whoever_waits_is_told_once_and_gets_the_lock_when_the_holder_ends(settings, holder):
    told = []

    def waiting(who):
        told.append(who)
        holder.stdin.write("\n")
        holder.stdin.flush()

    with deployer_lock(settings, "deploy", waiting=waiting) as fence:
        assert fence.epoch == 2
    assert len(told) == 1


def test_a_killed_holder_frees_the_lock(settings, holder):
    with deployer_lock(settings, "deploy", waiting=lambda _who: holder.kill()) as fence:
        assert fence.epoch == 2


def test_locks_of_different_names_do_not_meet(settings):
    with deployer_lock(settings, "deploy"), deployer_lock(settings, "other", deadline_s=0):
        pass


def test_an_index_can_be_built_concurrently_while_the_lock_is_held(settings, db):
    db.execute("CREATE TABLE t (a int)")
    with deployer_lock(settings, "deploy"):
        db.execute("SET statement_timeout = '5s'")
        db.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)")


def test_the_holder_keeps_no_snapshot(settings, db):
    with deployer_lock(settings, "deploy"):
        row = db.execute(
            """SELECT state, backend_xmin FROM pg_stat_activity
               WHERE application_name = 'migrator lock deploy' AND datname = current_database()"""
        ).fetchone()
    assert row == ("idle in transaction", None)


def test_a_fence_holds_until_the_next_holder(settings, db):
    with deployer_lock(settings, "deploy") as first, connect(settings, "test") as conn:
        first.check(conn)
    with (
        deployer_lock(settings, "deploy"),
        connect(settings, "test") as conn,
        pytest.raises(Busy, match="was lost"),
    ):
        first.check(conn)


def test_the_next_holder_waits_for_a_transaction_that_has_checked_the_fence(
    settings, database_url, db
):
    with deployer_lock(settings, "deploy") as first:
        pass
    with psycopg.connect(database_url) as under_way:
        first.check(under_way)
        started = time.monotonic()
        with (
            pytest.raises(Busy, match="still in a transaction"),
            deployer_lock(settings, "deploy", deadline_s=0.7),
        ):
            pytest.fail("the fence did not hold")
        assert time.monotonic() - started >= 0.6
        under_way.rollback()
    with deployer_lock(settings, "deploy") as second:
        assert second.epoch == 2


def end_session(db, application):
    db.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE application_name = %s AND datname = current_database()""",
        (application,),
    )


def is_held(db):
    found = db.execute(
        """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    ).fetchone()
    return found[0] > 0


def wait_until(condition, what, seconds=30):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


def test_the_holder_gives_signs_of_life(settings, db, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.02)
    beat = "SELECT heartbeat_at FROM migrator.deployer WHERE heartbeat_at > %s"
    with deployer_lock(settings, "deploy"):
        (taken,) = db.execute("SELECT since FROM migrator.deployer").fetchone()
        wait_until(lambda: db.execute(beat, (taken,)).fetchone(), "a first beat")
        (first,) = db.execute(beat, (taken,)).fetchone()
        wait_until(lambda: db.execute(beat, (first,)).fetchone(), "a second beat")


def test_a_lost_heartbeat_comes_back(settings, db, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.02)
    beat = "SELECT heartbeat_at FROM migrator.deployer WHERE heartbeat_at > %s"
    with deployer_lock(settings, "deploy"):
        (taken,) = db.execute("SELECT since FROM migrator.deployer").fetchone()
        wait_until(lambda: db.execute(beat, (taken,)).fetchone(), "a first beat")
        end_session(db, "migrator heartbeat deploy")
        (ended,) = db.execute("SELECT clock_timestamp()").fetchone()
        wait_until(lambda: db.execute(beat, (ended,)).fetchone(), "a beat after the end")


def test_the_heart_beats_while_a_transaction_keeps_the_fence(settings, db, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.02)
    beat = "SELECT heartbeat_at FROM migrator.deployer WHERE heartbeat_at > %s"
    with deployer_lock(settings, "deploy") as fence, connect(settings, "test") as under_way:
        fence.check(under_way)
        (checked,) = db.execute("SELECT clock_timestamp()").fetchone()
        wait_until(lambda: db.execute(beat, (checked,)).fetchone(), "a beat")


def test_a_beat_does_not_open_the_fence(settings, db, database_url):
    with deployer_lock(settings, "deploy") as first:
        pass
    with psycopg.connect(database_url) as under_way:
        first.check(under_way)
        db.execute("UPDATE migrator.deployer SET heartbeat_at = clock_timestamp()")
        with (
            pytest.raises(Busy, match="still in a transaction"),
            deployer_lock(settings, "deploy", deadline_s=0.3),
        ):
            pytest.fail("the fence did not hold")


def test_who_waits_is_told_how_old_the_last_sign_of_life_is(settings, holder, db):
    db.execute("UPDATE migrator.deployer SET heartbeat_at = clock_timestamp() - interval '1 hour'")
    with (
        pytest.raises(Busy, match=r"last sign of life 3600 s ago"),
        deployer_lock(settings, "deploy", deadline_s=0),
    ):
        pytest.fail("two hold it")


def test_a_lock_that_was_lost_is_taken_again_under_the_same_epoch(settings, db):
    with deployer_lock(settings, "deploy") as fence:
        end_session(db, "migrator lock deploy")
        wait_until(lambda: not is_held(db), "the loss")
        fence.renew()
        assert is_held(db)
        with connect(settings, "test") as conn:
            fence.check(conn)


def test_a_lock_that_is_held_is_renewed_by_doing_nothing(settings, db):
    pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'migrator lock deploy'"
    with deployer_lock(settings, "deploy") as fence:
        before = db.execute(pid).fetchall()
        fence.renew()
        assert db.execute(pid).fetchall() == before


def test_a_lock_that_was_lost_to_another_run_is_not_taken_again(settings, db):
    with deployer_lock(settings, "deploy") as fence:
        end_session(db, "migrator lock deploy")
        with deployer_lock(settings, "deploy"):
            pass
        with pytest.raises(Busy, match="was lost and another run has taken it"):
            fence.renew()


def test_a_lock_that_another_run_holds_is_not_taken_again(settings, db):
    with deployer_lock(settings, "deploy") as fence:
        end_session(db, "migrator lock deploy")
        with (
            deployer_lock(settings, "deploy"),
            pytest.raises(Busy, match="was lost and another run has taken it"),
        ):
            fence.renew()


def test_a_lock_that_was_taken_again_keeps_no_snapshot(settings, db):
    with deployer_lock(settings, "deploy") as fence:
        end_session(db, "migrator lock deploy")
        wait_until(lambda: not is_held(db), "the loss")
        fence.renew()
        row = db.execute(
            """SELECT state, backend_xmin FROM pg_stat_activity
               WHERE application_name = 'migrator lock deploy' AND datname = current_database()"""
        ).fetchone()
    assert row == ("idle in transaction", None)


def test_a_server_that_takes_no_writes_is_refused_before_anything_is_done(
    settings, make_settings, tmp_path, database_url, db
):
    name = database_url.rpartition("/")[2]
    db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with (
        pytest.raises(Refused, match="the server is read-only: default_transaction_read_only"),
        deployer_lock(settings, "deploy"),
    ):
        pytest.fail("it was taken")


def test_a_session_that_lost_its_settings_on_the_way_is_refused(settings, monkeypatch):
    plain = psycopg.connect

    def through_a_pooler(conninfo, *, options, **rest):
        return plain(conninfo, **rest)

    monkeypatch.setattr(psycopg, "connect", through_a_pooler)
    with (
        pytest.raises(Refused, match="a connection pooler lies between"),
        deployer_lock(settings, "deploy"),
    ):
        pytest.fail("it was taken")


def test_status_tells_who_holds_a_lock_and_how_old_the_sign_of_life_is(settings, db, cli):
    with deployer_lock(settings, "deploy"):
        db.execute("UPDATE migrator.deployer SET heartbeat_at = clock_timestamp() - interval '9 s'")
        said = cli("status").stdout
    assert f"running: deploy, by {ledger.client()}" in said
    assert "last sign of life 9 s ago" in said
    assert "running:" not in cli("status").stdout
