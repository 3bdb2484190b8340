from __future__ import annotations

import subprocess
import sys
import time

import psycopg
import pytest

from migrator.errors import Busy
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
