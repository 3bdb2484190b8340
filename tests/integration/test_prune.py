"""prune: archived builds go, but never the one that a rollback goes back to."""

from __future__ import annotations

import json

import pytest

from migrator.errors import Busy, Refused, UsageError
from migrator.postgres.locks import deployer_lock
from migrator.projections.prune import prune
from migrator.projections.rebuild import rebuild
from tests.projects import count, placed, states


@pytest.fixture
def four_builds(project, produce):
    """Three archived builds and a live one."""
    produce(project.topic, [placed(n) for n in range(20)])
    for _ in range(4):
        rebuild(project.settings, ["orders"])
    return project


def schemas(db) -> list[str]:
    query = r"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'migrator\_build%' ORDER BY 1"
    return [name for (name,) in db.execute(query)]


def test_all_but_what_rollback_needs_are_dropped(four_builds, cli, db):
    result = cli("--json", "prune")
    assert result.exit_code == 0
    kept = {each["build"]: each["kept"] for each in json.loads(result.stdout)["builds"]}
    assert kept == {3: "migrator rollback --projection orders goes back to it", 2: None, 1: None}
    assert states(db) == {1: "dropped", 2: "dropped", 3: "archived", 4: "live"}
    assert schemas(db) == ["migrator_build_3", "migrator_build_4"]
    left = db.execute("SELECT DISTINCT build FROM migrator.position ORDER BY 1").fetchall()
    assert left == [(3,), (4,)]
    assert cli("rollback", "--reason", "r", "--yes").exit_code == 0
    assert (states(db)[3], count(db)) == ("live", 20)


def test_not_even_keep_0_drops_what_rollback_needs(four_builds, db):
    prune(four_builds.settings, keep=0)
    assert states(db)[3] == "archived"


def test_after_a_rollback_the_bad_build_may_go_and_the_older_one_stays(four_builds, cli, db):
    assert cli("rollback", "--reason", "r", "--yes").exit_code == 0
    prune(four_builds.settings, keep=0)
    assert states(db) == {1: "dropped", 2: "archived", 3: "live", 4: "dropped"}


def test_the_newest_and_the_young_are_kept_as_asked(four_builds, cli, db):
    assert cli("prune", "--keep", "2", "--dry-run").stdout.count("kept") == 2
    db.execute("UPDATE migrator.build SET changed_at = now() - interval '3 days' WHERE build = 1")
    said = cli("prune", "--older-than", "2").stdout
    assert "build 2 of orders" in said
    assert "archived less than 2 days ago" in said
    assert "1 build dropped" in said
    assert states(db) == {1: "dropped", 2: "archived", 3: "archived", 4: "live"}


def test_a_dry_run_drops_nothing(four_builds, cli, db):
    assert "2 builds would be dropped" in cli("prune", "--dry-run").stdout
    assert states(db) == {1: "archived", 2: "archived", 3: "archived", 4: "live"}


def test_what_somebody_has_put_on_a_build_is_named_and_not_dropped(four_builds, cli, db):
    db.execute("CREATE VIEW public.old_orders AS SELECT * FROM migrator_build_1.orders")
    with pytest.raises(Refused, match=r"view old_orders depends on table migrator_build_1\.orders"):
        prune(four_builds.settings)
    assert (states(db)[1], count(db, "old_orders")) == ("archived", 20)
    db.execute("DROP VIEW old_orders")
    db.execute("CREATE FUNCTION migrator_build_1.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(Refused, match=r"function migrator_build_1\.f"):
        prune(four_builds.settings)
    assert states(db)[1] == "archived"


def test_again_and_without_a_ledger_there_is_nothing_to_drop(project, produce, cli):
    assert cli("prune").stdout == "Nothing to drop.\n"
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    assert cli("prune").stdout == "Nothing to drop.\n"


def test_an_unknown_projection_and_a_running_rebuild_are_named(four_builds):
    with pytest.raises(UsageError, match="unknown projection 'order'"):
        prune(four_builds.settings, projections=["order"])
    with deployer_lock(four_builds.settings, "rebuild orders"), pytest.raises(Busy):
        prune(four_builds.settings)
