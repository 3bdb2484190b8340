"""A build that goes live is brought up to what the live one has read: readers never go back in time."""

from __future__ import annotations

import json

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from migrator.deploy import rollback
from migrator.errors import MigratorError, Refused
from migrator.projections import build as builds
from migrator.projections import rebuild as rebuilding
from migrator.projections import registry, swap
from migrator.projections.catch_up import catch_up
from migrator.projections.cut_over import cut_over
from migrator.projections.rebuild import Options, rebuild
from tests.projects import count, edit, event, placed, remake, states

ROWS = "SELECT * FROM orders ORDER BY order_id"


def project_live(project, db) -> int:
    """Apply to live what has come, as `follow` would; returns how many events that were."""
    (live,) = builds.find(db, "orders", ["live"])
    definition = registry.load(project.settings.projections_dir)["orders"].definition
    return catch_up(db, project.settings, live, definition, live.target)


def expected(project, db):
    """The rows that a fresh replay of the whole log makes."""
    report = rebuild(project.settings, ["orders"], Options(cut_over=False, restart=True))
    build = report.projections[0].build
    return db.execute(f"SELECT * FROM migrator_build_{build}.orders ORDER BY order_id").fetchall()


@pytest.fixture
def two_builds(project, produce, db):
    """Build 1 is archived after 10 events, build 2 of another definition is live with 15 more."""
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    edit(project, '"placed"', '"new"')
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n) for n in range(10, 24)] + [("o3", event("OrderDeleted"))])
    assert project_live(project, db) == 15
    return project


def back(project, **options):
    return rollback.rollback(
        project.settings, rollback.plan(project.settings), reason="a test", **options
    )


def test_a_verified_build_that_live_has_overtaken_is_brought_up_in_the_swap(project, produce, db):
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    produce(project.topic, [placed(n) for n in range(10, 24)] + [("o3", event("OrderDeleted"))])
    project_live(project, db)
    before = db.execute(ROWS).fetchall()
    assert cut_over(project.settings, [2]).swapped.caught_up == 15
    assert states(db) == {1: "archived", 2: "live"}
    assert db.execute(ROWS).fetchall() == before


def test_what_live_reads_between_the_catch_up_and_the_lock_is_in_the_swap(
    project, produce, db, monkeypatch
):
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    drain = swap._drain

    def late(*args):
        produce(project.topic, [placed(n) for n in range(10, 14)])
        project_live(project, db)
        drain(*args)

    monkeypatch.setattr(swap, "_drain", late)
    assert cut_over(project.settings, [2]).swapped.caught_up == 4
    assert count(db) == 14


def test_what_comes_while_a_rebuild_loads_is_applied_before_it_is_checked(
    project, produce, db, monkeypatch
):
    produce(project.topic, [placed(n) for n in range(10)])
    vacuum = builds.vacuum

    def slow(*args):
        produce(project.topic, [placed(10), placed(11), ("o3", event("OrderDeleted"))])
        vacuum(*args)

    monkeypatch.setattr(builds, "vacuum", slow)
    said = []
    report = rebuild(project.settings, ["orders"], listener=said.append)
    steps = [s.step for s in said if isinstance(s, rebuilding.Step)]
    assert steps.index("load") < steps.index("catch-up") < steps.index("verify")
    (told,) = report.projections
    assert (told.rows, told.events, told.lag_events, count(db)) == (11, 13, 0, 11)


def test_a_bad_row_that_comes_while_a_rebuild_loads_fails_its_check(
    project, produce, db, monkeypatch
):
    produce(project.topic, [placed(1)])
    vacuum = builds.vacuum

    def slow(*args):
        produce(project.topic, [placed(2, total=-5)])
        vacuum(*args)

    monkeypatch.setattr(builds, "vacuum", slow)
    with pytest.raises(Refused, match="totals are positive"):
        rebuild(project.settings, ["orders"])
    assert states(db) == {1: "failed"}


def test_a_rollback_misses_no_event_where_the_old_definition_is_at_hand(two_builds, cli, db):
    edit(two_builds, '"new"', '"placed"')
    result = cli("rollback", "--reason", "r", "--yes")
    assert "build 1 lacks the 15 newest events; they are applied first" in result.stdout
    assert "15 events were applied" in result.stdout
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute(ROWS).fetchall() == expected(two_builds, db)


def test_without_the_old_definition_it_is_refused_and_instant_goes_back_at_once(
    two_builds, cli, db, monkeypatch
):
    db.execute("UPDATE migrator.build SET git_sha = 'abc123' WHERE build = 1")
    refused = cli("--json", "rollback", "--reason", "r", "--yes")
    assert refused.exit_code == Refused.exit_code
    said = json.loads(refused.stdout)
    assert "build 1 of orders lacks the 15 newest events" in said["found"]
    assert "commit abc123" in said["expected"]
    assert "--instant" in said["next"]
    assert states(db) == {1: "archived", 2: "live"}

    assert cli("rollback", "--instant", "--reason", "r", "--yes").exit_code == 0
    assert (states(db), count(db)) == ({1: "live", 2: "archived"}, 10)
    # The projector of the old release goes on where that release's build stood.
    edit(two_builds, '"new"', '"placed"')
    assert project_live(two_builds, db) == 15
    assert db.execute(ROWS).fetchall() == expected(two_builds, db)


def test_an_instant_rollback_is_brought_up_afterwards(two_builds, db):
    edit(two_builds, '"new"', '"placed"')
    assert back(two_builds, instant=True).swapped.caught_up == 15
    assert count(db) == 23


def test_a_definition_folder_that_does_not_load_counts_as_not_at_hand(two_builds, db):
    (two_builds.root / "projections" / "orders.py").write_text("raise RuntimeError")
    with pytest.raises(Refused, match="not in this checkout"):
        back(two_builds)
    back(two_builds, instant=True)
    assert states(db)[1] == "live"


@pytest.fixture
def choking(project, produce, db):
    """Build 1's definition fails at an event that came since, and is at hand; build 2 is live."""
    bad = '"placed" if event.total_cents != 13 else 1 / 0'
    edit(project, '"placed"', bad)
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    edit(project, bad, '"new"')
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(10, total=13)])
    project_live(project, db)
    edit(project, '"new"', bad)
    return project


def test_an_event_that_the_old_definition_cannot_fold_stops_the_rollback_and_is_named(choking, db):
    with pytest.raises(MigratorError, match="ZeroDivisionError") as stopped:
        back(choking)
    assert "--instant" in stopped.value.next_step
    assert states(db) == {1: "archived", 2: "live"}


def test_an_instant_rollback_tells_of_the_event_and_stands(choking, cli, db):
    result = cli("rollback", "--instant", "--reason", "r", "--yes")
    assert result.exit_code == 0
    assert "not all applied" in result.stdout
    assert "ZeroDivisionError" in result.stdout
    assert states(db) == {1: "live", 2: "archived"}


def test_where_the_topic_was_made_anew_instant_is_the_way_back(two_builds, brokers, db):
    remake(AdminClient({"bootstrap.servers": brokers}), two_builds.topic, 4)
    edit(two_builds, '"new"', '"placed"')
    with pytest.raises(MigratorError, match="cannot be brought up") as stopped:
        back(two_builds)
    assert "--instant" in stopped.value.next_step
    assert back(two_builds, instant=True).swapped.notes
    assert states(db)[1] == "live"


def test_in_the_swap_readers_do_not_wait_for_the_events(
    project, produce, db, database_url, monkeypatch
):
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    produce(project.topic, [placed(n) for n in range(10, 14)])
    project_live(project, db)
    inside = swap.tail.bring_inside
    seen = []

    def watched(*args):
        applied = inside(*args)
        with psycopg.connect(database_url) as reader:
            reader.execute("SET lock_timeout = '1ms'")
            seen.append(reader.execute("SELECT count(*) FROM orders").fetchone())
        return applied

    monkeypatch.setattr(swap.tail, "bring", lambda *_: 0)
    monkeypatch.setattr(swap.tail, "bring_inside", watched)
    assert cut_over(project.settings, [2]).swapped.caught_up == 4
    assert seen == [(14,)]
