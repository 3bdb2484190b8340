"""cut-over: verified builds become live by their numbers, together."""

from __future__ import annotations

import json

import pytest

from migrator.errors import Busy, Refused, UsageError
from migrator.postgres.locks import deployer_lock
from migrator.projections.cut_over import cut_over
from migrator.projections.rebuild import Options, rebuild
from tests.projects import count, edit, placed, states

STOPPED = Options(cut_over=False)


@pytest.fixture
def verified(project, produce):
    produce(project.topic, [placed(n) for n in range(20)])
    rebuild(project.settings, ["orders"], STOPPED)
    return project


def test_a_verified_build_becomes_live_and_the_ledger_says_so(verified, cli, db):
    said = cli("rebuild-projections", "--projection", "orders", "--no-cut-over").stdout
    assert "to make it live: migrator cut-over 1" in said
    result = cli("--json", "cut-over", "1")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["cut_over"]["live"] == [1]
    assert (states(db), count(db)) == ({1: "live"}, 20)
    acts = db.execute("SELECT act, subject, build, replaced_build FROM migrator.ledger").fetchall()
    assert acts == [("cut-over", "orders", 1, None)]


def test_the_one_before_is_archived_and_rollback_goes_back_to_it(verified, cli, db):
    cut_over(verified.settings, [1])
    edit(verified, 'self.status = "placed"', 'self.status = "new"')
    rebuild(verified.settings, ["orders"], STOPPED)
    said = cli("cut-over", "2").stdout
    assert "orders build 2." in said
    assert "kept for rollback: build 1" in said
    assert cli("rollback", "--reason", "r", "--yes").exit_code == 0
    assert states(db) == {1: "live", 2: "archived"}


def test_again_it_changes_nothing(verified, cli, db):
    cut_over(verified.settings, [1])
    again = cli("cut-over", "1")
    assert (again.exit_code, again.stdout) == (
        0,
        "Every build is live already; nothing was changed.\n",
    )
    assert db.execute("SELECT count(*) FROM migrator.ledger").fetchone() == (1,)


def test_a_dry_run_prints_the_swap_and_moves_nothing(verified, cli, db):
    result = cli("cut-over", "1", "--dry-run")
    assert 'ALTER TABLE "migrator_build_1"."orders" SET SCHEMA "public";' in result.stdout
    assert states(db) == {1: "verified"}


def test_builds_that_cannot_become_live_are_refused_with_the_way_on(verified, cli, db):
    assert cli("abort", "1").exit_code == 0
    for state in ("aborted", "failed", "archived", "replaying", "loaded"):
        db.execute("UPDATE migrator.build SET state = %s", (state,))
        with pytest.raises(Refused, match=f"build 1 of orders is {state}") as refused:
            cut_over(verified.settings, [1])
        assert refused.value.next_step


def test_what_does_not_exist_or_is_named_twice_is_an_error(verified, db):
    with pytest.raises(UsageError, match="there is no build 9"):
        cut_over(verified.settings, [1, 9])
    db.execute(
        """INSERT INTO migrator.build (projection, state, definition_hash, target_schema, table_name)
           VALUES ('orders', 'verified', 'h', 'public', 'orders')"""
    )
    with pytest.raises(UsageError, match="builds 1 and 2 are both of orders"):
        cut_over(verified.settings, [1, 2])
    assert states(db) == {1: "verified", 2: "verified"}
    assert [b.build for b in cut_over(verified.settings, [1, 1]).builds] == [1]


def test_a_build_that_a_rebuild_works_on_is_busy(verified, db):
    with deployer_lock(verified.settings, "rebuild orders"), pytest.raises(Busy):
        cut_over(verified.settings, [1])
    assert states(db) == {1: "verified"}


def test_without_a_ledger_there_is_no_build(project):
    with pytest.raises(UsageError, match="there is no build 1"):
        cut_over(project.settings, [1])
