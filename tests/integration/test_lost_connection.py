from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from migrator.errors import Busy, CannotConnect
from migrator.migrations import up
from migrator.migrations.apply import Done
from migrator.migrations.retry import Retry
from migrator.migrations.up import Started
from migrator.postgres import ledger, locks
from migrator.postgres.locks import deployer_lock
from migrator.settings import load
from tests import proxy, revisions


@pytest.fixture
def through(database_url, make_settings, tmp_path, monkeypatch):
    """A proxy between migrator and the server; its settings."""
    where = conninfo_to_dict(database_url)
    settings = make_settings(tmp_path)
    with proxy.before(where["host"], int(where["port"])) as between:
        url = f"postgresql://{where['user']}@127.0.0.1:{between.port}/{where['dbname']}?sslmode=disable"
        monkeypatch.setenv("MIGRATOR_DATABASE_URL", url)
        between.settings = load()
        assert settings.database.url != between.settings.database.url
        yield between


def end_sessions(db, application):
    db.execute(
        """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
           WHERE application_name = %s AND datname = current_database()""",
        (application,),
    )


def tables(db):
    found = db.execute("SELECT relname FROM pg_class WHERE relname ~ '^t[0-9]$' ORDER BY 1")
    return [name for (name,) in found]


def applied_twice_or_not_at_all(db):
    subjects = [entry.subject for entry in ledger.entries(db) if entry.act == "up"]
    return sorted(subjects) != sorted(set(subjects))


POINTS = {
    "before the first statement": ("cut_before", "DISCARD ALL"),
    "at a statement": ("cut_before", "CREATE TABLE t2"),
    "after a statement": ("cut_after", "CREATE TABLE t2"),
    "at the ledger's entry": ("cut_before", "INSERT INTO migrator.ledger"),
    "at the look at the fence": ("cut_after", "FOR KEY SHARE"),
    "before the commit": ("cut_before", "COMMIT"),
    "after the commit": ("cut_after", "COMMIT"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_connection_that_is_cut_there_loses_nothing_and_does_nothing_twice(
    tmp_path, through, db, point
):
    revisions.tables(tmp_path, 3)
    how, text = POINTS[point]
    heard = []

    def progress(step):
        heard.append(step)
        if isinstance(step, Started) and step.number == 2 and not through.cut:
            getattr(through, how)("migrator up", text)

    outcome = up.up(through.settings, progress=progress)
    assert through.cut == ["migrator up"]
    assert [done.revision for done in outcome.applied] == ["0001", "0002", "0003"]
    assert [entry.subject for entry in ledger.entries(db)] == ["0001", "0002", "0003"]
    assert tables(db) == ["t1", "t2", "t3"]
    assert [step.lost_connection for step in heard if isinstance(step, Retry)] == [True]


def test_a_commit_whose_answer_is_lost_is_not_repeated(tmp_path, through, db):
    db.execute("CREATE TABLE times (a int)")
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("SELECT 1")', "SELECT 1;"),
        ("0002", 'op.execute("INSERT INTO times VALUES (1)")', "SELECT 1;"),
    )

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            through.cut_after("migrator up", "COMMIT")

    done = up.up(through.settings, progress=progress).applied[1]
    assert db.execute("SELECT count(*) FROM times").fetchone() == (1,)
    assert done.entry == ledger.entries(db)[-1].entry


def test_what_the_server_still_holds_of_a_cut_session_is_ended(tmp_path, through, db, monkeypatch):
    """The network is cut in the middle of a revision, and the server has not noticed."""
    monkeypatch.setenv("MIGRATOR_DATABASE__DEADLINE_S", "5")
    through.silent = True
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            through.cut_before("migrator up", "COMMIT")

    assert len(up.up(load(), progress=progress).applied) == 2
    assert tables(db) == ["t1", "t2"]


def test_the_lock_that_the_server_still_holds_for_a_cut_session_is_taken_again(
    tmp_path, through, db
):
    through.silent = True
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            through.cut_now("migrator lock deploy")

    assert len(up.up(through.settings, progress=progress).applied) == 2


def test_an_index_build_that_is_cut_is_built_in_the_end(tmp_path, through, db):
    revisions.indexed(tmp_path)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            through.cut_after("migrator up", "CREATE INDEX")

    assert [done.revision for done in up.up(through.settings, progress=progress).applied] == [
        "0001",
        "0002",
    ]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass"
    assert db.execute(valid).fetchone() == (True,)


def test_a_session_that_is_terminated_is_replaced(tmp_path, make_settings, db):
    settings = make_settings(tmp_path)
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            end_sessions(db, "migrator up")

    outcome = up.up(settings, progress=progress)
    assert [done.retries for done in outcome.applied] == [0, 1]


def test_all_sessions_lost_at_once_as_by_a_restart_are_replaced_and_the_lock_with_them(
    tmp_path, make_settings, db
):
    settings = make_settings(tmp_path)
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            end_sessions(db, "migrator up")
            end_sessions(db, "migrator lock deploy")
            assert not locks.holders(db)
        if isinstance(step, Done):
            assert [holder.lock for holder in locks.holders(db)] == ["deploy"]

    assert len(up.up(settings, progress=progress).applied) == 2
    assert db.execute("SELECT epoch FROM migrator.deployer").fetchone() == (1,)


def test_a_lock_lost_to_another_run_stops_this_one_and_says_what_is_applied(
    tmp_path, make_settings, db
):
    settings = make_settings(tmp_path)
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            end_sessions(db, "migrator lock deploy")
            with deployer_lock(settings, "deploy"):
                pass

    with pytest.raises(Busy, match="was lost and another run has taken it") as caught:
        up.up(settings, progress=progress)
    assert caught.value.data["applied"] == ["0001"]
    assert tables(db) == ["t1"]


def test_a_server_that_does_not_come_back_is_exit_5_at_the_deadline(
    tmp_path, through, db, monkeypatch
):
    monkeypatch.setenv("MIGRATOR_DATABASE__DEADLINE_S", "0.5")
    settings = load()
    revisions.tables(tmp_path, 2)

    def progress(step):
        if isinstance(step, Started) and step.number == 2:
            through.refusing = True
            through.cut_now("migrator up")

    with pytest.raises(CannotConnect, match="did not answer again before the deadline") as caught:
        up.up(settings, progress=progress)
    assert caught.value.exit_code == 5
    assert caught.value.data["applied"] == ["0001"]
    assert tables(db) == ["t1"]


def test_a_rollback_whose_commit_is_lost_is_not_repeated(tmp_path, through, db):
    from migrator.deploy import rollback

    revisions.tables(tmp_path, 2)
    up.up(through.settings)
    planned = rollback.plan(through.settings)
    through.cut_after("migrator rollback", "COMMIT")
    rollback.rollback(through.settings, planned, reason="a test")
    assert through.cut == ["migrator rollback"]
    assert [entry.act for entry in ledger.entries(db)] == ["up", "up", "rollback"]
    assert tables(db) == ["t1"]


def test_a_simple_revision_takes_five_round_trips(tmp_path, through):
    """The reset, BEGIN, its statement, stamp with ledger and fence, COMMIT."""
    revisions.tables(tmp_path, 3)
    through.listen_to, began = "migrator up", []

    def progress(step):
        if isinstance(step, Started):
            began.append(len(through.asked))

    up.up(through.settings, progress=progress)
    second = through.asked[began[1] : began[2]]
    assert len(second) == 5, second
