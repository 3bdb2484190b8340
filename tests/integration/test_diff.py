"""The diff of a build with live: every planted difference is found, and nothing else is."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import psycopg
import pytest

from migrator.projections import build as builds
from migrator.projections import diff
from migrator.projections.diff_columns import NotCompared
from migrator.projections.rebuild import Options, rebuild
from migrator.projections.registry import load
from tests.projects import placed

pytestmark = pytest.mark.usefixtures("in_process")


def with_(settings, **projections):
    changed = settings.projections.model_copy(update=projections)
    return settings.model_copy(update={"projections": changed})


SHADOW = Options(cut_over=False)


def both_ways(settings, *args, **projections):
    """The diff by one join, which the one by buckets must equal."""
    joined = diff.compare(args[0], with_(settings, **projections), *args[1:])
    by_buckets = with_(settings, diff_join_rows=0, **projections)
    bucketed = diff.compare(args[0], by_buckets, *args[1:])
    assert joined.buckets is None
    assert bucketed.buckets is not None
    assert replace(joined, seconds=0) == replace(bucketed, seconds=0, buckets=None)
    return joined


@pytest.fixture
def compared(project, db):
    """`compared(**settings)`: the diff of the verified or loaded build with live."""

    def compare(renamed=None, **projections):
        registered = load(project.settings.projections_dir)["orders"]
        (build,) = builds.find(db, "orders", ["loaded", "verified"])
        return both_ways(project.settings, db, build, registered.definition, renamed, **projections)

    return compare


@pytest.fixture
def pair(project, produce):
    """Two builds of a hundred orders: one live, the other verified."""
    produce(project.topic, [placed(n, n) for n in range(100)])
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], SHADOW)
    return project


def found(diff):
    return {(each.kind, *each.key.values()): each.columns for each in diff.first}


def test_two_builds_of_the_same_events_do_not_differ(pair, compared):
    seen = compared()
    assert (seen.keys, seen.differing, seen.first, seen.left_out) == (100, 0, (), 0)
    assert (seen.live_rows, seen.shadow_rows) == (100, 100)


def test_every_kind_of_difference_is_found_with_its_key_and_its_values(pair, compared, db):
    db.execute("DELETE FROM orders WHERE order_id = 'o3'")
    db.execute(
        "INSERT INTO orders VALUES ('x', 'c', 'placed', 1, NULL), ('y', 'c', 'placed', 1, NULL)"
    )
    db.execute("UPDATE orders SET total_cents = -1, carrier = 'UPS' WHERE order_id = 'o5'")
    seen = compared()
    assert found(seen) == {
        ("extra", "o3"): {},
        ("missing", "x"): {},
        ("missing", "y"): {},
        ("changed", "o5"): {"total_cents": ("-1", "5"), "carrier": ("UPS", None)},
    }
    assert (seen.keys, seen.missing, seen.extra, seen.changed) == (102, 2, 1, 1)
    assert seen.changed_columns == {"total_cents": 1, "carrier": 1}
    assert [each.key["order_id"] for each in seen.first] == ["o3", "o5", "x", "y"]


def test_rows_that_cancel_each_other_in_an_xor_are_found(pair, compared, db):
    """Two rows exchange all values but the key: a sum of hashes without the key would not see it."""
    db.execute(
        """UPDATE orders AS a SET (customer_id, status, total_cents, carrier) =
                  (b.customer_id, b.status, b.total_cents, b.carrier)
           FROM orders AS b WHERE (a.order_id, b.order_id) IN (('o1', 'o2'), ('o2', 'o1'))"""
    )
    assert set(found(compared())) == {("changed", "o1"), ("changed", "o2")}


def test_only_the_first_keys_are_listed_and_all_are_counted(pair, compared, db):
    db.execute("UPDATE orders SET status = 'lost' WHERE total_cents >= 50")
    seen = compared(diff_shown=3)
    assert (seen.changed, seen.changed_columns, len(seen.first)) == (50, {"status": 50}, 3)


def test_empty_tables_compare(pair, compared, db):
    db.execute("DELETE FROM orders")
    seen = compared()
    assert (seen.live_rows, seen.extra, seen.keys) == (0, 100, 100)


def test_keys_that_only_one_build_has_read_are_left_out_and_counted(project, produce, compared, db):
    produce(project.topic, [placed(n, n) for n in range(50)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n, 900) for n in (3, 4, 4, 200)])
    rebuild(project.settings, ["orders"], SHADOW)
    seen = compared()
    assert (seen.left_out, seen.events_between, seen.differing, seen.keys) == (3, 4, 0, 48)
    db.execute("UPDATE orders SET status = 'lost' WHERE order_id IN ('o3', 'o7')")
    assert set(found(compared())) == {("changed", "o7")}


def test_live_may_be_ahead_of_the_shadow(pair, produce, compared, db):
    produce(pair.topic, [placed(n, 900) for n in (3, 4)])
    follow(db, pair, {"o3": 900, "o4": 900})
    seen = compared()
    assert (seen.left_out, seen.events_between, seen.differing) == (2, 2, 0)


def follow(db, project, totals):
    """What a projector would commit, of all events that have come: rows and positions together."""
    (live,) = builds.find(db, "orders", ["live"])
    with db.transaction():
        for key, total in totals.items():
            db.execute("UPDATE orders SET total_cents = %s WHERE order_id = %s", (total, key))
        for part in ends(project):
            db.execute(
                """UPDATE migrator.position SET next_offset = %s, end_offset = %s
                   WHERE build = %s AND partition = %s""",
                (part.end, part.end, live.build, part.partition),
            )


def ends(project):
    from migrator.kafka import topics

    return topics.describe(project.settings.kafka_config, project.topic).partitions


def test_more_touched_keys_than_the_bound_are_not_compared(project, produce, compared):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n) for n in range(20)])
    rebuild(project.settings, ["orders"], SHADOW)
    with pytest.raises(NotCompared, match="more than 10 keys"):
        compared(diff_max_touched=10)


def test_nothing_is_compared_where_nothing_is_live(project, produce, compared):
    produce(project.topic, [placed(1)])
    report = rebuild(project.settings, ["orders"], SHADOW)
    result = report.projections[0].results[-1]
    assert (result.verdict, result.found) == ("skipped", "nothing is live yet")


class Projector(threading.Thread):
    """Moves live as `follow` does: produces an order, folds it, and commits row and position at once."""

    def __init__(self, project, produce, database_url, live):
        super().__init__(daemon=True)
        self.project, self.produce, self.database_url, self.live = (
            project,
            produce,
            database_url,
            live,
        )
        self.stopped = threading.Event()
        self.moved = 0
        self.error = None

    def run(self):
        try:
            with psycopg.connect(self.database_url, autocommit=True) as conn:
                for number in itertools.cycle(range(100)):
                    if self.stopped.is_set():
                        return
                    self.move(conn, number)
        except Exception as exc:  # noqa: BLE001 - the test is told
            self.error = exc

    def move(self, conn, number):
        self.moved += 1
        total = 1000 + self.moved
        self.produce(self.project.topic, [placed(number, total)], partition=number % 4)
        with conn.transaction():
            conn.execute(
                "UPDATE orders SET total_cents = %s WHERE order_id = %s", (total, f"o{number}")
            )
            conn.execute(
                """UPDATE migrator.position
                   SET next_offset = next_offset + 1, end_offset = end_offset + 1, events = events + 1
                   WHERE build = %s AND partition = %s""",
                (self.live, number % 4),
            )


def test_no_difference_is_reported_while_a_projector_moves_live(project, produce, db, database_url):
    for number in range(4):
        own = [placed(n, n) for n in range(100) if n % 4 == number]
        produce(project.topic, own, partition=number)
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], SHADOW)
    (live,), (build,) = (builds.find(db, "orders", [state]) for state in ("live", "verified"))
    definition = load(project.settings.projections_dir)["orders"].definition
    db.execute("UPDATE orders SET carrier = 'lost' WHERE order_id = 'o99'")
    projector = Projector(project, produce, database_url, live.build)
    projector.start()
    naive = 0
    try:
        for turn in range(30):
            settings = with_(project.settings, diff_join_rows=0 if turn % 2 else 1000)
            seen = diff.compare(db, settings, build, definition)
            assert set(found(seen)) <= {("changed", "o99")}
            assert seen.keys == 100 - seen.left_out
            naive += plainly_differing(db, build) > 1
    finally:
        projector.stopped.set()
        projector.join(30)
    assert projector.error is None
    assert projector.moved > 5
    assert naive > 20


def plainly_differing(db, build):
    return db.execute(
        f"""SELECT count(*) FROM orders FULL JOIN {build.schema}.orders AS s USING (order_id)
            WHERE orders.total_cents IS DISTINCT FROM s.total_cents
               OR orders.carrier IS DISTINCT FROM s.carrier"""
    ).fetchone()[0]
