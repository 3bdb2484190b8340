"""Projections swapped back by psql alone, after real rebuilds."""

from __future__ import annotations

import json
import subprocess

import pytest

from migrator.deploy import export, rollback
from migrator.migrations import verify
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock
from migrator.projections import build as builds
from migrator.projections import swap_script
from migrator.projections.rebuild import Options, rebuild
from migrator.sandbox import client_program
from tests import torture
from tests.integration.test_rollback import twice_built  # noqa: F401 - a fixture
from tests.projects import count, placed, states

FILE = "swap_back_orders.sql"


@pytest.fixture
def folder(twice_built, tmp_path):  # noqa: F811
    """Build 2 with 25 rows is live, build 1 with 10 archived, and both are exported."""
    export.write(export.plan(twice_built.settings), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def psql(project, folder):
    def run(*, reason="readers see nonsense", file=FILE):
        return subprocess.run(
            [
                client_program("psql"),
                *("-X", "-v", f"reason={reason}", "-f", folder / file),
                project.settings.conninfo,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def refused(run, db, said, before):
    assert run.returncode == 3, run.stdout + run.stderr
    assert said in run.stderr
    assert states(db) == before


def test_it_makes_the_archived_build_live_and_the_chain_holds(project, folder, psql, db):
    ran = psql()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "live again: build 1" in ran.stdout
    assert (states(db), count(db)) == ({1: "live", 2: "archived"}, 10)
    entries = ledger.entries(db)
    last = entries[-1]
    assert (last.act, last.subject, last.undoes) == ("swap-back", "orders", 2)
    assert (last.build, last.replaced_build, last.reason) == (1, 2, "readers see nonsense")
    assert ledger.broken_links(entries) == []


def test_its_entry_says_what_that_of_a_rollback_says(project, folder, psql, db):
    assert psql().returncode == 0
    by_psql = ledger.entries(db)[-1]
    rebuild(project.settings, ["orders"])
    rollback.rollback(project.settings, rollback.plan(project.settings), reason="x", instant=True)
    by_migrator = ledger.entries(db)[-1]
    for name in ("act", "subject", "message", "phase", "irreversible", "allowed", "retries"):
        assert getattr(by_psql, name) == getattr(by_migrator, name)
    assert (
        by_psql.source_hash
        == db.execute("SELECT definition_hash FROM migrator.build WHERE build = 1").fetchone()[0]
    )


def test_a_rebuild_afterwards_goes_forward_again(project, folder, psql, db):
    assert psql().returncode == 0
    rebuild(project.settings, ["orders"])
    assert (states(db), count(db)) == ({1: "archived", 2: "archived", 3: "live"}, 25)


def test_the_grants_of_the_live_table_are_given_to_the_archived_one(folder, psql, db, role):
    db.execute(
        f"GRANT SELECT ON orders TO {role}; GRANT UPDATE ON migrator_build_1.orders TO {role}"
    )
    assert psql().returncode == 0
    found = db.execute(
        f"""SELECT has_table_privilege('{role}', 'orders', 'SELECT'),
                   has_table_privilege('{role}', 'orders', 'UPDATE')"""
    ).fetchone()
    assert found == (True, False)


@pytest.mark.parametrize("name", ["orders", 'Or"d er$1'])
def test_everything_attached_goes_back_by_psql_as_a_plain_owner(servers, tmp_path, name):
    with torture.tortured(servers[0], name) as found:
        found.cut_over(found.build())
        before, dumped = found.proof(), found.dump()
        (tmp_path / FILE).write_text(exported(found))
        ran = subprocess.run(
            [
                client_program("psql"),
                *("-X", "-v", "reason=r", "-f", tmp_path / FILE),
                found.settings.conninfo,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert builds.find(found.admin, name, ["live"])[0].build == 1
        assert torture.differences(before, found.proof()) == []
        assert found.dump() == dumped


def exported(found) -> str:
    with connect(found.settings, "export") as conn:
        (entry,) = rollback.last_cut_overs(conn)
        return swap_script.script(
            found.settings, entry, rollback.move_back(conn, entry), behind=0
        ).text


def test_a_view_changed_while_it_waits_for_the_locks_is_carried_as_it_is_then(folder, db, project):
    db.execute("CREATE VIEW v AS SELECT order_id FROM orders")
    command = [client_program("psql"), "-X", "-v", "reason=x", "-f", folder / FILE]
    with connect(project.settings, "reader") as reader:
        reader.execute("SELECT * FROM orders")
        with subprocess.Popen([*command, project.settings.conninfo], stdout=-3) as running:
            while not db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert running.poll() is None
            reader.execute("CREATE VIEW later AS SELECT status FROM orders")
            reader.commit()
            assert running.wait(60) == 0
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute("SELECT DISTINCT status FROM later").fetchall() == [("placed",)]
    assert db.execute("SELECT count(*) FROM v").fetchone() == (10,)


def test_a_second_run_is_refused(folder, psql, db):
    assert psql().returncode == 0
    said = "the last cut-over of orders that stands is entry 1, not entry 2"
    refused(psql(), db, said, {1: "live", 2: "archived"})


def test_after_another_rebuild_it_is_refused(project, folder, psql, db, produce):
    produce(project.topic, [placed(30)])
    rebuild(project.settings, ["orders"], Options(restart=True))
    before = states(db)
    assert before[3] == "live"
    refused(psql(), db, "stands is entry 3, not entry 2", before)


def test_after_another_rebuild_and_back_it_is_refused_no_more(project, folder, psql, db):
    rebuild(project.settings, ["orders"], Options(restart=True))
    rollback.rollback(project.settings, rollback.plan(project.settings), reason="x", instant=True)
    assert psql().returncode == 0
    assert states(db) == {1: "live", 2: "archived", 3: "archived"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE migrator.build SET state = 'dropped' WHERE build = 1",
            "build 1 of orders is dropped",
        ),
        (
            "UPDATE migrator.build SET definition_hash = 'x' WHERE build = 1",
            "build 1 of orders has another definition",
        ),
        ("DROP TABLE migrator_build_1.orders", "table migrator_build_1.orders is not there"),
        (
            "CREATE VIEW v AS SELECT orders AS whole FROM orders",
            "column whole of view public.v, which uses the row type: drop it",
        ),
        (
            "ALTER TABLE orders ADD more int; CREATE VIEW v AS SELECT more FROM orders",
            "view public.v, whose column more is not there any more",
        ),
        (
            "UPDATE migrator.ledger SET entry_hash = 'x' WHERE entry = 2",
            "that stands is entry 2, not entry 2",
        ),
        ("DROP SCHEMA migrator CASCADE; CREATE SCHEMA migrator", "this database has no ledger"),
    ],
)
def test_where_the_database_is_not_as_it_was_exported_it_is_refused(folder, psql, db, change, said):
    db.execute(change)
    ran = psql()
    assert (ran.returncode, said in ran.stderr) == (3, True), ran.stderr
    assert count(db) == 25


def test_beside_a_run_of_migrator_it_is_refused(project, folder, psql, db):
    with deployer_lock(project.settings, "deploy"):
        refused(psql(), db, "holds the deployer lock", {1: "archived", 2: "live"})


def test_without_a_reason_it_is_refused(folder, psql, db):
    refused(psql(reason=""), db, "the reason is empty", {1: "archived", 2: "live"})


def test_it_gives_up_after_the_deadline_and_leaves_everything(folder, psql, db, project):
    script = folder / FILE
    text = script.read_text()
    assert "'30 seconds'" in text
    script.write_text(text.replace("'30 seconds'", "'0.2 seconds'"))
    with connect(project.settings, "reader") as reader:
        reader.execute("SELECT * FROM orders")
        refused(psql(), db, "the tables of orders were not free", {1: "archived", 2: "live"})


def test_it_waits_for_a_reader_who_leaves_in_time(folder, db, project):
    command = [client_program("psql"), "-X", "-v", "reason=x", "-f", folder / FILE]
    with connect(project.settings, "reader") as reader:
        reader.execute("SELECT * FROM orders")
        with subprocess.Popen([*command, project.settings.conninfo], stdout=-3) as running:
            while not db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert running.poll() is None
            reader.rollback()
            assert running.wait(60) == 0
    assert states(db) == {1: "live", 2: "archived"}


def test_the_index_and_the_command_name_it_with_what_readers_lose(folder, cli, tmp_path):
    index = (folder / "index.md").read_text()
    assert f"| `{FILE}` | orders | 1 | 2 | 15 |" in index
    assert "Run them in this order" not in index
    result = cli("rollback", "--export", str(tmp_path / "more"))
    assert f"{FILE} swaps orders back from build 2 to 1, which lacks the 15 newest events" in (
        result.stdout
    )
    document = json.loads(cli("--json", "rollback", "--export", "x", "--dry-run").stdout)
    assert [s["projection"] for s in document["swap_backs"]] == ["orders"]


def test_a_first_cut_over_has_no_script_and_that_is_said(project, produce, tmp_path, cli):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    result = cli("rollback", "--export", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert "the cut-over of orders to build 1 was its first" in result.stderr


def test_verify_finds_nothing_wrong_afterwards(folder, psql, project):
    assert psql().returncode == 0
    (project.root / "migrations/versions").mkdir(parents=True)
    (project.root / "migrations/rollback").mkdir()
    assert verify.verify(project.settings).findings == ()
