from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from migrator.errors import Busy, MigratorError, Refused
from migrator.migrations import undo, up
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock
from tests import revisions

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


def newest(settings):
    with connect(settings, "test") as conn:
        return ledger.entries(conn)[-1]


def undo_it(settings, entry, **options):
    with deployer_lock(settings, "deploy") as fence:
        return undo.undo_revision(
            settings, entry, reason="it was wrong", run=uuid4(), fence=fence, **options
        )


def version(db):
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return row and row[0]


def exists(db, table):
    return db.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()[0]


@pytest.fixture
def applied(tmp_path, settings):
    """Tables t1 and t2, applied."""
    revisions.tables(tmp_path, 2)
    up.up(settings)
    return settings


def test_the_script_runs_the_version_goes_back_and_the_ledger_says_so(applied, db):
    entry = newest(applied)
    undone = undo_it(applied, entry)
    assert not exists(db, "t2")
    assert (undone.revision, undone.version, version(db)) == ("0002", "0001", "0001")
    written = newest(applied)
    assert (written.act, written.subject, written.undoes) == ("rollback", "0002", entry.entry)
    assert (written.reason, written.entry) == ("it was wrong", undone.entry)
    assert written.previous_hash == entry.entry_hash


def test_it_needs_no_file_of_the_revision(applied, tmp_path, db):
    shutil.rmtree(tmp_path / "migrations")
    undo_it(applied, newest(applied))
    assert not exists(db, "t2")


def test_the_stored_script_counts_and_not_the_checkouts(applied, tmp_path, db):
    (tmp_path / "migrations/rollback/0002.sql").write_text("DROP TABLE t1;")
    undo_it(applied, newest(applied))
    assert (exists(db, "t1"), exists(db, "t2")) == (True, False)


def test_the_first_revision_leaves_no_version(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    up.up(settings)
    undone = undo_it(settings, newest(settings))
    assert (undone.version, version(db)) == (None, None)


def test_what_was_undone_is_pending_and_can_be_applied_again(applied, db):
    undo_it(applied, newest(applied))
    assert [done.revision for done in up.up(applied).applied] == ["0002"]
    assert exists(db, "t2")


def test_an_undone_revision_cannot_be_undone_twice(applied):
    entry = newest(applied)
    undo_it(applied, entry)
    with pytest.raises(Refused, match=r"0002 .* is not the newest that is applied"):
        undo_it(applied, entry)


def test_an_older_revision_is_refused_while_a_newer_one_stands(applied, db):
    with connect(applied, "test") as conn:
        first = ledger.entries(conn)[0]
    with pytest.raises(Refused, match="the newest is 0002"):
        undo_it(applied, first)
    assert exists(db, "t1")


def test_a_tampered_script_is_refused_and_not_run(applied, db):
    db.execute(
        "UPDATE migrator.ledger SET rollback_script = 'DROP TABLE t1' WHERE subject = '0002'"
    )
    with pytest.raises(Refused, match="0002 in the ledger is tampered") as caught:
        undo_it(applied, newest(applied))
    assert caught.value.exit_code == 3
    assert exists(db, "t1")


def test_an_irreversible_revision_is_refused_with_its_reason(tmp_path, settings):
    revisions.write(
        tmp_path,
        "0001",
        head='phase = "contract"\nrollback = irreversible("the rows are gone")',
        rollback=None,
    )
    up.up(settings)
    with pytest.raises(Refused, match="0001 is irreversible: the rows are gone"):
        undo_it(settings, newest(settings))


def test_a_script_that_fails_leaves_the_revision_applied(tmp_path, settings, db):
    revisions.chain(
        tmp_path,
        (
            "0001",
            'op.execute("CREATE TABLE t (a int)")',
            "-- first\nDROP TABLE t;\nDROP TABLE not_there;",
        ),
    )
    up.up(settings)
    with pytest.raises(MigratorError) as caught:
        undo_it(settings, newest(settings))
    assert caught.value.found == (
        'the rollback script of 0001 failed: table "not_there" does not exist\n'
        "in: DROP TABLE not_there\n"
        "what the script did is rolled back; the revision is still applied"
    )
    assert (exists(db, "t"), version(db), newest(settings).act) == (True, "0001", "up")


def test_a_rollback_entry_is_no_revision_to_undo(applied):
    undo_it(applied, newest(applied))
    with pytest.raises(Refused, match="is a rollback of 0002"):
        undo_it(applied, newest(applied))


def test_a_version_table_that_somebody_moved_is_refused(applied, db):
    db.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(Refused, match="names 0001, but the newest"):
        undo_it(applied, newest(applied))
    assert exists(db, "t2")


def test_an_index_is_dropped_concurrently_outside_a_transaction(tmp_path, settings, db):
    revisions.indexed(tmp_path)
    up.up(settings)
    undo_it(settings, newest(settings))
    assert (exists(db, "t_a"), version(db)) == (False, "0001")


def test_an_autocommit_script_that_had_run_already_can_be_repeated(tmp_path, settings, db):
    revisions.indexed(tmp_path)
    up.up(settings)
    db.execute("DROP INDEX t_a")
    undo_it(settings, newest(settings))
    assert version(db) == "0001"


@contextmanager
def held(database_url, table):
    with psycopg.connect(database_url) as blocker:
        blocker.execute(f"LOCK TABLE {table}")
        yield blocker


def test_a_lock_that_is_released_is_waited_for(applied, database_url, db):
    entry = newest(applied)
    with held(database_url, "t2") as blocker:
        undone = undo_it(applied, entry, told=lambda _retry: blocker.rollback())
    assert (undone.retries, exists(db, "t2")) == (1, False)


def test_a_lock_that_is_never_released_is_busy(tmp_path, make_settings, database_url, db):
    settings = make_settings(tmp_path, database={"lock_timeout_ms": 20, "deadline_s": 0.3})
    revisions.tables(tmp_path, 1)
    up.up(settings)
    entry = newest(settings)
    with held(database_url, "t1"), pytest.raises(Busy, match="undoing 0001 gave up after"):
        undo_it(settings, entry)
    assert (exists(db, "t1"), version(db)) == (True, "0001")


def test_whoever_has_lost_the_lock_undoes_nothing(applied, db):
    with deployer_lock(applied, "deploy") as fence:
        db.execute("UPDATE migrator.deployer SET epoch = epoch + 1")
        with pytest.raises(Busy, match="was lost"):
            undo.undo_revision(applied, newest(applied), reason="why", run=uuid4(), fence=fence)
    assert exists(db, "t2")


def test_shown_prints_the_stored_script_with_what_is_done_around_it(tmp_path, settings):
    revisions.indexed(tmp_path)
    up.up(settings)
    with connect(settings, "test") as conn:
        first, second = ledger.entries(conn)
    assert undo.shown(settings, first) == (
        "-- undo 0001 Revision 0001\nBEGIN;\nDROP TABLE t;\n"
        "-- alembic_version is emptied; the ledger gets an entry\nCOMMIT;"
    )
    assert "-- outside a transaction:\n-- migrator: autocommit\nDROP INDEX" in undo.shown(
        settings, second
    )


def test_the_sample_migrations_leave_nothing_when_all_are_undone(make_settings, tmp_path, db):
    settings = make_settings(tmp_path, migrations={"directory": str(REPOSITORY / "migrations")})
    catalog = """
        SELECT relname, relkind, attname FROM pg_class LEFT JOIN pg_attribute ON attrelid = oid
        WHERE relnamespace = 'public'::regnamespace AND relname !~ '^alembic_version' ORDER BY 1, 3
    """
    up.up(settings)
    complete = db.execute(catalog).fetchall()
    for _ in range(3):
        with connect(settings, "test") as conn:
            entries = ledger.entries(conn)
        gone = {entry.undoes for entry in entries}
        undo_it(settings, [e for e in entries if e.act == "up" and e.entry not in gone][-1])
    assert db.execute(catalog).fetchall() == []
    up.up(settings)
    assert db.execute(catalog).fetchall() == complete
