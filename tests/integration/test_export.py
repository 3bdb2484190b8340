from __future__ import annotations

import subprocess

import pytest

from migrator.deploy import export
from migrator.errors import Refused
from migrator.migrations import up, verify
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock
from migrator.sandbox import client_program
from tests import revisions

REASON = 'it was "slow" \\ sehr\ttrüb 🚀'


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


@pytest.fixture
def folder(tmp_path, settings):
    """Three revisions applied and exported: table t, its index built CONCURRENTLY, table u."""
    revisions.indexed(tmp_path)
    revisions.write(
        tmp_path,
        "0003",
        'op.execute("CREATE TABLE u (a int)")',
        revises="0002",
        rollback="-- it's über\r\nSAVEPOINT a;\nDROP TABLE u;\nRELEASE a; -- $undo$ \\ done",
        message="Add 'u' \\\\ ü",
    )
    up.up(settings)
    export.write(export.plan(settings), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def psql(settings):
    def run(file, *variables, reason=REASON):
        said = ["-v", f"reason={reason}"] if reason is not None else []
        return subprocess.run(
            [client_program("psql"), "-X", *said, *variables, "-f", file, settings.conninfo],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def state(settings):
    with connect(settings, "test") as conn:
        heads = conn.execute("SELECT array_agg(version_num) FROM alembic_version").fetchone()[0]
        return heads, ledger.entries(conn)


def is_whole(settings):
    with connect(settings, "test") as conn:
        return ledger.broken_links(ledger.entries(conn)) == []


def refused(run, said):
    assert run.returncode == 3, run.stdout + run.stderr
    assert said in run.stderr


def test_psql_alone_undoes_the_newest_and_the_chain_holds(settings, folder, psql, db):
    ran = psql(folder / "undo_0003.sql")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("undone: 0003; the database is at 0002\n")
    assert db.execute("SELECT to_regclass('u')").fetchone() == (None,)
    heads, entries = state(settings)
    assert heads == ["0002"]
    assert (entries[-1].act, entries[-1].undoes, entries[-1].reason) == ("rollback", 3, REASON)
    assert is_whole(settings)


def test_all_of_them_in_the_order_of_the_index_lead_to_an_empty_database(
    settings, folder, psql, db
):
    files = [
        line.split("`")[1]
        for line in (folder / "index.md").read_text().splitlines()
        if "| `" in line
    ]
    assert files == ["undo_0003.sql", "undo_0002.sql", "undo_0001.sql"]
    for file in files:
        ran = psql(folder / file)
        assert ran.returncode == 0, ran.stderr
    assert state(settings)[0] is None
    assert is_whole(settings)
    assert verify.verify(settings, with_drift=False).is_clean
    assert len(up.up(settings).applied) == 3
    assert verify.verify(settings).is_clean


def test_a_script_outside_a_transaction_gives_its_lock_back_before_it_ends(
    settings, folder, psql, db
):
    assert psql(folder / "undo_0003.sql").returncode == 0
    script = folder / "undo_0002.sql"
    script.write_text(
        script.read_text() + "SELECT 'held: ' || count(*) FROM pg_locks l, pg_database"
        " d WHERE l.database = d.oid AND datname = current_database() AND locktype = 'advisory';"
    )
    assert "held: 0" in psql(script).stdout


def test_out_of_order_it_is_refused(settings, folder, psql):
    refused(psql(folder / "undo_0002.sql"), "the newest revision in the ledger is 0003 (entry 3)")
    assert state(settings)[0] == ["0003"]


def test_a_second_run_is_refused(settings, folder, psql):
    assert psql(folder / "undo_0003.sql").returncode == 0
    refused(psql(folder / "undo_0003.sql"), "the newest revision in the ledger is 0002 (entry 2)")


def test_after_the_revision_was_applied_anew_an_old_export_is_refused(settings, folder, psql):
    assert psql(folder / "undo_0003.sql").returncode == 0
    up.up(settings)
    refused(psql(folder / "undo_0003.sql"), "the newest revision in the ledger is 0003 (entry 5)")


def test_another_version_is_refused(settings, folder, psql, db):
    db.execute("UPDATE alembic_version SET version_num = '0001'")
    refused(psql(folder / "undo_0003.sql"), "public.alembic_version names {0001}, not {0003}")


def test_a_database_without_a_ledger_is_refused(settings, folder, psql, db):
    db.execute("DROP SCHEMA migrator CASCADE")
    refused(psql(folder / "undo_0003.sql"), "this database has no ledger")


def test_a_tampered_file_is_refused_and_not_run(settings, folder, psql, db):
    file = folder / "undo_0003.sql"
    file.write_bytes(file.read_bytes().replace(b"DROP TABLE u;", b"DROP TABLE t;"))
    refused(psql(file), "the script in undo_0003.sql is tampered")
    assert db.execute("SELECT to_regclass('t') IS NULL").fetchone() == (False,)


def test_a_script_that_was_tampered_with_in_the_ledger_is_refused(settings, folder, psql, db):
    db.execute("UPDATE migrator.ledger SET rollback_script = 'DROP TABLE t' WHERE entry = 3")
    refused(psql(folder / "undo_0003.sql"), "the rollback script of 0003 in the ledger is tampered")


@pytest.mark.parametrize(("reason", "said"), [(None, "there is no reason"), ("", "is empty")])
def test_without_a_reason_it_is_refused(settings, folder, psql, reason, said):
    refused(psql(folder / "undo_0003.sql", reason=reason), said)
    assert state(settings)[0] == ["0003"]


def test_beside_a_run_of_migrator_it_is_refused(settings, folder, psql):
    with deployer_lock(settings, "deploy"):
        refused(psql(folder / "undo_0003.sql"), "another run of migrator holds the deployer lock")


def test_a_run_that_has_lost_its_lock_commits_nothing_after_it(settings, folder, psql, db):
    before = db.execute("SELECT epoch FROM migrator.deployer").fetchone()[0]
    assert psql(folder / "undo_0003.sql").returncode == 0
    assert db.execute("SELECT epoch FROM migrator.deployer").fetchone() == (before + 1,)


def test_a_script_that_fails_leaves_everything_as_it_was(settings, folder, psql, db):
    db.execute("DROP TABLE u")
    refused(psql(folder / "undo_0003.sql"), 'table "u" does not exist')
    heads, entries = state(settings)
    assert (heads, len(entries)) == (["0003"], 3)


def test_a_lock_is_waited_for_no_longer_than_the_lock_timeout(settings, folder, psql, db):
    with connect(settings, "reader") as reader:
        reader.execute("SELECT * FROM u")
        refused(psql(folder / "undo_0003.sql"), "canceling statement due to lock timeout")


def test_it_ends_before_what_is_irreversible(tmp_path, settings, cli):
    revisions.write(
        tmp_path,
        "0001",
        head='phase = "contract"\nrollback = irreversible("the rows are gone")',
        rollback=None,
    )
    up.up(settings)
    with pytest.raises(Refused, match="0001 is irreversible: the rows are gone"):
        export.plan(settings)
    revisions.write(tmp_path, "0002", revises="0001")
    up.up(settings)
    result = cli("rollback", "--export", str(tmp_path / "out"))
    assert "after the last: revision 0001 is irreversible: the rows are gone" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["index.md", "undo_0002.sql"]


def test_a_folder_that_is_not_empty_is_refused(folder, cli):
    result = cli("rollback", "--export", str(folder))
    assert (result.exit_code, "is not empty" in result.stderr) == (3, True)


def test_a_dry_run_writes_no_file(folder, tmp_path, cli):
    result = cli("rollback", "--export", str(tmp_path / "other"), "--dry-run")
    assert "3 scripts and index.md would be written" in result.stdout
    assert not (tmp_path / "other").exists()


def test_export_stands_alone(folder, tmp_path, cli):
    result = cli("rollback", "--export", str(tmp_path / "other"), "--to", "0001")
    assert (result.exit_code, "--export stands with" in result.stderr) == (2, True)
