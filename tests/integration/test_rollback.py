"""Going back: archived builds and stored rollback scripts, each recorded with its reason."""

from __future__ import annotations

import json
import threading

import psycopg
import pytest

from migrator.deploy import rollback
from migrator.errors import Refused, UsageError
from migrator.migrations.up import up
from migrator.postgres import ledger
from migrator.projections.rebuild import rebuild
from tests.projects import count, edit, placed, revision, states


@pytest.fixture
def twice_built(project, produce, db):
    """Build 1 with 10 rows is archived, build 2 with 25 and a changed definition is live."""
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    edit(project, '"placed"', '"new"')
    produce(project.topic, [placed(n) for n in range(10, 25)])
    rebuild(project.settings, ["orders"])
    return project


def go_back(settings, **which):
    return rollback.rollback(
        settings, rollback.plan(settings, **which), reason="a test", instant=True
    )


def test_the_last_cut_over_is_undone_by_swapping_back(twice_built, db):
    go_back(twice_built.settings)
    assert states(db) == {1: "live", 2: "archived"}
    assert count(db) == 10
    assert db.execute("SELECT DISTINCT status FROM orders").fetchone() == ("placed",)
    last = ledger.entries(db)[-1]
    assert (last.act, last.undoes, last.reason) == ("swap-back", 2, "a test")


def test_a_privilege_that_was_revoked_since_does_not_come_back(twice_built, db, role):
    db.execute(f"GRANT SELECT, UPDATE (status) ON migrator_build_1.orders TO {role}")
    db.execute("GRANT SELECT ON migrator_build_1.orders TO PUBLIC")
    go_back(twice_built.settings)
    found = db.execute(
        f"""SELECT has_table_privilege('{role}', 'orders', 'SELECT'),
                   has_column_privilege('{role}', 'orders', 'status', 'UPDATE')"""
    ).fetchone()
    assert found == (False, False)


def test_the_plan_says_how_many_events_the_archived_build_lacks(twice_built):
    assert rollback.plan(twice_built.settings).behind == {"orders": 15}


def test_a_rebuild_after_a_swap_back_goes_forward_again(twice_built, db):
    go_back(twice_built.settings)
    rebuild(twice_built.settings, ["orders"])
    assert states(db) == {1: "archived", 2: "archived", 3: "live"}
    assert count(db) == 25


def test_the_swap_back_works_without_the_projections_code(twice_built, db):
    (twice_built.root / "projections" / "orders.py").unlink()
    go_back(twice_built.settings)
    assert states(db) == {1: "live", 2: "archived"}


def test_a_first_cut_over_has_nothing_to_go_back_to(project, produce):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    with pytest.raises(Refused, match="was its first"):
        rollback.plan(project.settings)


def test_readers_see_no_error_while_the_builds_are_swapped_back(twice_built, database_url):
    stop, seen, errors = threading.Event(), set(), []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            while not stop.is_set():
                try:
                    seen.add(conn.execute("SELECT count(*) FROM orders").fetchone()[0])
                except psycopg.Error as exc:
                    errors.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    go_back(twice_built.settings)
    stop.set()
    reader.join()
    assert errors == []
    assert seen <= {10, 25}


def test_the_last_revision_is_undone_by_the_script_that_the_database_keeps(project, db):
    revision(project, "0001", None, "CREATE TABLE notes (id int)", "DROP TABLE notes")
    up(project.settings)
    (project.root / "migrations" / "rollback" / "0001.sql").write_text("SELECT 1")
    go_back(project.settings)
    assert db.execute("SELECT to_regclass('notes')").fetchone() == (None,)
    assert [e.act for e in ledger.entries(db)] == ["up", "rollback"]


def test_only_the_last_revision_is_undone_by_default(project, db):
    two_revisions(project)
    go_back(project.settings)
    assert db.execute("SELECT to_regclass('a'), to_regclass('b')").fetchone() == ("a", None)


def test_to_undoes_every_revision_above_it_newest_first(project, db):
    two_revisions(project)
    revision(project, "0003", "0002", "CREATE TABLE c (id int)", "DROP TABLE c")
    up(project.settings)
    done = go_back(project.settings, to="0001")
    assert [e.subject for e in done.undone] == ["0003", "0002"]
    assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def two_revisions(project) -> None:
    revision(project, "0001", None, "CREATE TABLE a (id int)", "DROP TABLE a")
    revision(project, "0002", "0001", "CREATE TABLE b (id int)", "DROP TABLE b")
    up(project.settings)


def test_what_is_undone_is_not_undone_again(project):
    two_revisions(project)
    go_back(project.settings)
    assert [e.subject for e in rollback.plan(project.settings).entries] == ["0001"]


def test_the_default_follows_the_order_of_what_was_done(twice_built):
    two_revisions(twice_built)
    assert rollback.plan(twice_built.settings).entries[0].subject == "0002"


def test_a_projection_can_be_named_past_later_revisions(twice_built, db):
    two_revisions(twice_built)
    go_back(twice_built.settings, projections=["orders"])
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute("SELECT to_regclass('b')").fetchone() == ("b",)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ({"projections": ["order"]}, "unknown projection 'order'"),
        ({"to": "0009"}, "unknown revision '0009'"),
        ({"to": "0002"}, "newest revision already"),
        ({"to": "0001", "projections": ["orders"]}, "both given"),
    ],
)
def test_what_is_not_there_is_named(twice_built, which, said):
    two_revisions(twice_built)
    with pytest.raises((UsageError, Refused), match=said):
        rollback.plan(twice_built.settings, **which)


def test_an_empty_ledger_has_nothing_to_roll_back(project):
    with pytest.raises(Refused, match="nothing to roll back"):
        rollback.plan(project.settings)


def test_a_plan_that_another_run_has_carried_out_is_refused(twice_built):
    planned = rollback.plan(twice_built.settings)
    rollback.rollback(twice_built.settings, planned, reason="first", instant=True)
    with pytest.raises(Refused, match="not archived any more"):
        rollback.rollback(twice_built.settings, planned, reason="second", instant=True)


def test_the_command_asks_for_a_reason_and_a_yes(twice_built, cli, db):
    without_reason = cli("rollback", "--instant", "--yes")
    assert (without_reason.exit_code, "reason" in without_reason.stderr) == (2, True)
    without_yes = cli("rollback", "--instant", "--reason", "r")
    assert (without_yes.exit_code, "--yes" in without_yes.stderr) == (2, True)
    assert states(db) == {1: "archived", 2: "live"}
    done = cli("--json", "rollback", "--instant", "--reason", "r", "--yes")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["behind"] == {"orders": 15}
    assert states(db) == {1: "live", 2: "archived"}


def test_a_dry_run_prints_the_sql_and_changes_nothing(twice_built, cli, db):
    shown = cli("rollback", "--dry-run")
    assert shown.exit_code == 0
    assert 'ALTER TABLE "migrator_build_1"."orders" SET SCHEMA "public"' in shown.stdout
    assert states(db) == {1: "archived", 2: "live"}
