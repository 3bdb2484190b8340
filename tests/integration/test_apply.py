"""The engine that keeps a build current: rows and positions in one transaction, whatever comes between."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import psycopg
import pytest

from migrator.errors import Fenced, MigratorError, Overtaken, RowRefused
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import registry, writers
from migrator.projections.apply import Applier
from migrator.projections.catch_up import catch_up, lag
from migrator.projections.rebuild import Options, rebuild
from migrator.projections.writers import Advance
from migrator.settings import Topic
from tests.integration.test_reducers import CUSTOMERS
from tests.projects import edit, event, placed, write

ORDERS = "SELECT * FROM orders ORDER BY 1"


@pytest.fixture
def live(project, produce, db):
    """`orders` is live with ten events; a session, its build and its definition."""
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    (build,) = builds.find(db, "orders", ["live"])
    registered = registry.load(project.settings.projections_dir)["orders"]
    with connect(project.settings, "test", autocommit=True) as conn:
        yield SimpleNamespace(
            conn=conn,
            build=build,
            definition=registered.definition,
            hash=registered.hash,
            settings=project.settings,
            topic=project.topic,
        )


def caught_up(live, build=None, table=None, **options) -> int:
    build = build or live.build
    return catch_up(
        live.conn, live.settings, build, live.definition, table or build.target, **options
    )


def rebuilt(live, db, query=ORDERS):
    """What a rebuild of everything would make live."""
    rebuild(live.settings, ["orders"])
    return db.execute(query).fetchall()


def test_what_came_since_is_applied_to_the_live_table(live, produce, db):
    produce(live.topic, [placed(3, 7), placed(11), ("o4", None), ("o5", event("OrderDeleted"))])
    assert caught_up(live) == 4
    rows = db.execute(ORDERS).fetchall()
    assert len(rows) == 9
    assert rows == rebuilt(live, db)


def test_what_is_applied_is_not_applied_again(live, produce):
    produce(live.topic, [placed(11)])
    assert [caught_up(live), caught_up(live)] == [1, 0]


def test_control_records_at_the_end_are_stepped_over(live, produce, db):
    produce(live.topic, [placed(11)], transactional=True)
    produce(live.topic, [placed(12)], transactional=True, abort=True)
    caught_up(live)
    assert sum(p.events for p in builds.positions(db, live.build.build)) == 11
    assert caught_up(live) == 0


def test_it_stops_where_it_is_told(live, produce, db):
    produce(live.topic, [placed(n) for n in range(20, 30)], partition=0)
    start = {(p.topic, p.partition): p.next_offset for p in builds.positions(db, 1)}
    until = {(live.topic, 0): start[live.topic, 0] + 4}
    assert lag(live.conn, live.build, until) == 4
    assert caught_up(live, until=until) == 4
    assert lag(live.conn, live.build, until) == 0


def test_a_build_that_readers_do_not_see_is_caught_up_in_its_own_schema(live, produce, db):
    rebuild(live.settings, ["orders"], Options(cut_over=False))
    (shadow,) = builds.find(db, "orders", ["verified"])
    produce(live.topic, [placed(11)])
    before = db.execute(ORDERS).fetchall()
    assert caught_up(live, shadow, shadow.table) == 1
    assert db.execute(ORDERS).fetchall() == before
    assert db.execute("SELECT count(*) FROM migrator_build_2.orders").fetchone() == (11,)


def test_in_the_callers_transaction_nothing_is_left_where_it_is_rolled_back(live, produce, db):
    produce(live.topic, [placed(11)])
    before = builds.positions(db, live.build.build)
    with live.conn.transaction() as transaction:
        live.conn.execute("SET LOCAL search_path = ''")
        assert caught_up(live, in_transaction=True) == 1
        raise psycopg.Rollback(transaction)
    assert builds.positions(db, live.build.build) == before
    assert caught_up(live) == 1


def test_a_position_that_another_has_moved_is_found_and_nothing_is_written(live, produce, db):
    produce(live.topic, [placed(11)], partition=0)
    applier = Applier(
        live.conn, {live.topic: Topic()}, live.build, live.definition, live.build.target
    )
    offset = builds.positions(db, 1)[0].next_offset
    with pytest.raises(Overtaken, match=f"is not at offset {offset + 1}"), live.conn.transaction():
        applier.apply([], [Advance(live.topic, 0, offset + 1, offset + 2, 1)])
    assert builds.positions(db, 1)[0].next_offset == offset


def test_an_event_that_does_not_fold_is_named_and_nothing_of_its_batch_stays(live, produce, db):
    produce(live.topic, [placed(11), ("o11", b"{")], partition=0)
    with pytest.raises(MigratorError, match="partition 0, offset") as caught:
        caught_up(live)
    assert caught.value.data["key"] == "o11"
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (10,)


def test_a_row_that_the_table_does_not_take_is_explained(live, produce):
    produce(live.topic, [("new", event("OrderShipped", carrier="x"))])
    with pytest.raises(RowRefused, match="a row of orders: null value in column") as caught:
        caught_up(live)
    assert "after every event" in caught.value.expected


def test_rows_that_do_not_change_are_not_written(live, produce, db):
    ours = "SELECT ctid FROM orders WHERE order_id = 'o3'"
    before = db.execute(ours).fetchone()
    produce(live.topic, [placed(3), ("o3", event("OrderSeen"))])
    assert caught_up(live) == 2
    assert db.execute(ours).fetchone() == before


def test_two_projectors_join_what_they_reduce_of_one_key(project, produce, db):
    write(project.root, CUSTOMERS.format(topic=project.topic), "customers.py")
    event_of = [("x", event("OrderPlaced", customer_id="c", total_cents=n)) for n in range(200)]
    produce(project.topic, event_of[:1], partition=0)
    rebuild(project.settings, ["customers"])
    for partition in range(4):
        produce(project.topic, event_of[partition::4], partition=partition)
    (build,) = builds.find(db, "customers", ["live"])
    definition = registry.load(project.settings.projections_dir)["customers"].definition
    ends = {(project.topic, n): 51 if n == 0 else 50 for n in range(4)}
    failed = []

    def follow(partition: int) -> None:
        try:
            with connect(project.settings, "test", autocommit=True) as conn:
                until = {(project.topic, partition): ends[project.topic, partition]}
                catch_up(conn, project.settings, build, definition, build.target, until)
        except Exception as exc:  # noqa: BLE001
            failed.append(exc)

    threads = [threading.Thread(target=follow, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    followed = db.execute("SELECT * FROM customers").fetchall()
    assert followed[0][:5] == ("c", 201, sum(range(200)), 0, 199)
    rebuild(project.settings, ["customers"])
    assert db.execute("SELECT * FROM customers").fetchall() == followed


def test_a_writer_of_another_definition_is_fenced(live):
    with pytest.raises(Fenced, match=f"build 1 of orders is live, of definition {live.hash}"):
        writers.assert_writer(live.conn, "orders", "another")
    with pytest.raises(Fenced, match="no build of nothing is live"):
        writers.assert_writer(live.conn, "nothing", live.hash)
    assert writers.assert_writer(live.conn, "orders", live.hash) == live.build.build


def test_a_writer_that_would_not_see_a_swap_is_refused(live):
    live.conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with (
        pytest.raises(psycopg.Error, match="would not see a swap") as caught,
        live.conn.transaction(),
    ):
        writers.assert_writer(live.conn, "orders", live.hash)
    assert caught.value.sqlstate == "MG004"


def test_a_swap_waits_for_writers_and_a_writer_behind_it_sees_the_new_build(live, db):
    rebuild(live.settings, ["orders"], Options(cut_over=False))
    seen: list[int] = []

    def write_behind() -> None:
        with connect(live.settings, "test", autocommit=True) as conn, conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '30s'")
            seen.append(writers.assert_writer(conn, "orders", live.hash))

    swapping = threading.Thread(target=rebuild, args=(live.settings, ["orders"]))
    behind = threading.Thread(target=write_behind)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with live.conn.transaction():
        assert writers.assert_writer(live.conn, "orders", live.hash) == 1
        swapping.start()
        _await(db, waiting, 1)
        behind.start()
        _await(db, waiting, 2)
        # Readers go on: the swap has locked no table yet.
        assert db.execute("SELECT count(*) FROM orders").fetchone() == (10,)
    behind.join()
    swapping.join()
    assert seen == [2]


def _await(db, query: str, count: int) -> None:
    for _ in range(20_000):
        if db.execute(query).fetchone()[0] >= count:
            return
    raise AssertionError(query)


@pytest.mark.parametrize("kind", ["CHAR(4)", "VARCHAR(4)"])
def test_a_key_of_a_bounded_text_is_found_whole(project, produce, db, kind):
    edit(
        project,
        "order_id: Mapped[str] = mapped_column(primary_key=True)",
        f"order_id: Mapped[str] = mapped_column({kind}, primary_key=True)",
    )
    edit(project, "import BigInteger", "import CHAR, VARCHAR, BigInteger")
    produce(project.topic, [placed(100), placed(200)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [("o100", event("OrderShipped", carrier="dhl"))])
    (build,) = builds.find(db, "orders", ["live"])
    definition = registry.load(project.settings.projections_dir)["orders"].definition
    assert catch_up(db, project.settings, build, definition, build.target) == 1
    rows = db.execute("SELECT order_id, status FROM orders ORDER BY 1").fetchall()
    assert rows == [("o100", "shipped"), ("o200", "placed")]
