"""abort: an unfinished or failed build goes, with everything that it made."""

from __future__ import annotations

import json

import pytest

from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres.locks import deployer_lock
from migrator.projections.abort import abort
from migrator.projections.rebuild import Options, rebuild
from tests.projects import edit, placed, states


def left_of(db, build: int) -> list[int]:
    """How much of it is there: schema, relations, positions."""
    return [
        db.execute(query, {"schema": f"migrator_build_{build}", "build": build}).fetchone()[0]
        for query in (
            "SELECT count(*) FROM pg_namespace WHERE nspname = %(schema)s",
            "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text = %(schema)s",
            "SELECT count(*) FROM migrator.position WHERE build = %(build)s",
        )
    ]


@pytest.fixture
def verified(project, produce):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    return project


def test_nothing_of_a_verified_build_is_left(verified, cli, db):
    db.execute("CREATE TABLE migrator_build_1.migrator_spill_0 (a int)")
    result = cli("--json", "abort", "1")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["state"] == "verified"
    assert document["tables"] == ["migrator_build_1.migrator_spill_0", "migrator_build_1.orders"]
    assert left_of(db, 1) == [0, 0, 0]
    assert states(db) == {1: "aborted"}


@pytest.mark.parametrize("state", ["replaying", "failed"])
def test_a_build_that_was_stopped_is_aborted_and_the_next_one_is_new(project, produce, db, state):
    if state == "failed":
        produce(project.topic, [placed(1, total=-1)])
    else:
        edit(project, 'self.status = "placed"', "self.statuss = 1 / 0")
        produce(project.topic, [placed(1)])
    with pytest.raises(MigratorError):
        rebuild(project.settings, ["orders"])
    assert states(db) == {1: state}
    assert abort(project.settings, 1).state == state
    assert (states(db), left_of(db, 1)) == ({1: "aborted"}, [0, 0, 0])


def test_a_dry_run_drops_nothing(verified, cli, db):
    result = cli("abort", "1", "--dry-run")
    assert 'DROP SCHEMA IF EXISTS "migrator_build_1" CASCADE;' in result.stdout
    assert "nothing was changed" in result.stdout
    assert states(db) == {1: "verified"}


def test_live_and_archived_builds_are_refused_with_the_way_on(project, produce, cli, db):
    produce(project.topic, [placed(1)])
    for _ in range(2):
        rebuild(project.settings, ["orders"])
    live, archived = cli("abort", "2"), cli("abort", "1", "--dry-run")
    assert (live.exit_code, archived.exit_code) == (3, 3)
    assert "build 2 of orders is live" in live.stderr
    assert "migrator rebuild-projections --projection orders replaces it" in live.stderr
    assert "migrator rollback --projection orders makes it live again" in archived.stderr
    assert states(db) == {1: "archived", 2: "live"}


def test_while_a_rebuild_runs_it_is_refused_and_says_who_runs(verified, cli, db):
    with deployer_lock(verified.settings, "rebuild orders"):
        result = cli("abort", "1")
    assert result.exit_code == 4
    assert "(process " in result.stderr
    assert states(db) == {1: "verified"}


def test_again_it_has_nothing_to_do(verified, cli):
    assert cli("abort", "1").exit_code == 0
    again = cli("abort", "1")
    assert again.exit_code == 0
    assert "nothing is left of it" in again.stdout


def test_a_build_that_never_was_is_named(project, cli, db):
    result = cli("abort", "7")
    assert (result.exit_code, "there is no build 7" in result.stderr) == (2, True)
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_a_build_whose_table_was_dropped_is_refused(verified, db):
    db.execute("UPDATE migrator.build SET state = 'dropped'")
    with pytest.raises(Refused, match="is dropped"):
        abort(verified.settings, 1)
    with pytest.raises(UsageError):
        abort(verified.settings, 2)
