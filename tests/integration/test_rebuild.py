"""The main job: replay a topic into a fresh table, check it, make it live."""

from __future__ import annotations

import gc
import threading
import uuid

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from migrator.errors import Busy, MigratorError, Refused, UsageError
from migrator.kafka import topics
from migrator.postgres import ledger
from migrator.postgres.locks import deployer_lock
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.rebuild import Options, plan, rebuild
from migrator.projections.replay import Progress, Task, replay
from migrator.projections.store import Target
from tests.projects import count, edit, event, placed, states, unsampled, write


def test_a_first_rebuild_makes_the_folded_rows_live(project, produce, db):
    produce(project.topic, [placed(n) for n in range(100)])
    produce(project.topic, [(f"o{n}", event("OrderShipped", carrier="dhl")) for n in range(10)])
    produce(project.topic, [("o99", event("OrderDeleted")), ("o98", None)])
    produce(project.topic, [("o1", event("OrderSeen"))])
    report = rebuild(project.settings, ["orders"])
    assert report.swapped is not None
    assert count(db) == 98
    assert db.execute("SELECT count(*) FROM orders WHERE carrier = 'dhl'").fetchone() == (10,)
    assert db.execute("SELECT * FROM orders WHERE order_id = 'o7'").fetchone() == (
        "o7",
        "c0",
        "shipped",
        100,
        "dhl",
    )
    assert [b.rows for b in builds.find(db, "orders", ["live"])] == [98]
    assert [e.act for e in ledger.entries(db)] == ["cut-over"]


def test_the_live_table_has_the_definitions_indexes_under_their_own_names(project, produce, db):
    produce(project.topic, [placed(1)])
    for _ in range(2):
        rebuild(project.settings, ["orders"])
    names = db.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    ).fetchall()
    assert names == [("orders_customer_id_idx",), ("orders_pkey",)]


def test_positions_are_the_topics_ends(project, produce, db):
    produce(project.topic, [placed(n) for n in range(50)])
    rebuild(project.settings, ["orders"])
    positions = builds.positions(db, 1)
    assert len(positions) == 4
    assert sum(p.next_offset for p in positions) == 50
    assert all(p.next_offset == p.end_offset for p in positions)


def test_a_second_rebuild_archives_the_first(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(2)])
    rebuild(project.settings, ["orders"])
    assert states(db) == {1: "archived", 2: "live"}
    assert count(db) == 2
    assert count(db, "migrator_build_1.orders") == 1


def test_events_of_an_aborted_transaction_are_not_folded(project, produce, db):
    produce(project.topic, [placed(1)], transactional=True)
    produce(project.topic, [placed(2)], transactional=True, abort=True)
    produce(project.topic, [placed(3)], transactional=True)
    rebuild(project.settings, ["orders"])
    assert db.execute("SELECT order_id FROM orders ORDER BY 1").fetchall() == [("o1",), ("o3",)]


def test_two_projections_share_one_pass_and_one_cut_over(project, produce, db):
    write(
        project.root,
        f"""
        from migrator import Projection, on
        from projections.orders import OrderPlaced
        from sqlalchemy.orm import Mapped, mapped_column


        class Customer(
            Projection,
            topic="{project.topic}",
            key=lambda event: event.customer_id,
            co_partitioned=True,
        ):
            __tablename__ = "customers"
            ignores = ("OrderShipped", "OrderDeleted", "OrderSeen")
            customer_id: Mapped[str] = mapped_column(primary_key=True)
            orders: Mapped[int] = mapped_column(default=0)

            @on(OrderPlaced)
            def placed(self, event: OrderPlaced) -> None:
                self.orders += 1
        """,
        "customers.py",
    )
    produce(project.topic, [placed(0), placed(7), placed(14)], partition=2)
    report = rebuild(project.settings, ["orders", "customers"])
    assert db.execute("SELECT * FROM customers").fetchall() == [("c0", 3)]
    assert count(db) == 3
    assert len({e.run for e in ledger.entries(db)}) == 1
    assert len(report.projections) == 2


def test_a_key_in_two_partitions_stops_the_rebuild_by_name(project, produce, db):
    produce(project.topic, [placed(1)], partition=0)
    produce(project.topic, [placed(1)], partition=1)
    with pytest.raises(Refused, match=r"met in two partitions.*o1"):
        rebuild(unsampled(project.settings), ["orders"])
    assert states(db) == {1: "failed"}


def test_no_cut_over_stops_at_verified_and_the_next_command_goes_on(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    assert states(db) == {1: "verified"}
    assert db.execute("SELECT to_regclass('public.orders')").fetchone() == (None,)
    rebuild(project.settings, ["orders"])
    assert states(db) == {1: "live"}


def test_a_changed_definition_abandons_the_unfinished_build(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    edit(project, '"placed"', '"new"')
    rebuild(project.settings, ["orders"])
    assert states(db) == {1: "aborted", 2: "live"}
    assert db.execute("SELECT to_regnamespace('migrator_build_1')").fetchone() == (None,)


def test_restart_starts_over(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    rebuild(project.settings, ["orders"], Options(restart=True))
    assert states(db) == {1: "aborted", 2: "live"}


def test_a_failing_check_stops_before_the_cut_over(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(2, total=-5)])
    with pytest.raises(Refused, match="totals are positive: rows such as") as caught:
        rebuild(project.settings, ["orders"])
    verdicts = {r["check"]: r["verdict"] for r in caught.value.data["report"]}
    assert [check for check, verdict in verdicts.items() if verdict == "failed"] == [
        "totals are positive"
    ]
    assert states(db) == {1: "live", 2: "failed"}
    assert count(db) == 1


def test_an_event_type_without_handler_is_named(project, produce, db):
    produce(project.topic, [placed(1), ("o1", event("OrderTouched"))], partition=3)
    with pytest.raises(Refused, match=r"no handler for 'OrderTouched'.*partition 3, offset 1"):
        rebuild(unsampled(project.settings), ["orders"])
    assert states(db) == {1: "replaying"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"not json", "malformed"),
        ({"id": "x", "data": {}}, "missing required field `type`"),
        ({"type": "OrderPlaced", "data": {"customer_id": "c"}}, "total_cents"),
        ({"type": "OrderPlaced", "data": {"customer_id": 3, "total_cents": 1}}, "Expected `str`"),
    ],
)
def test_an_event_that_does_not_decode_is_named(project, produce, db, value, said):
    produce(project.topic, [placed(1), ("bad", value)], partition=1)
    with pytest.raises(MigratorError, match="does not decode") as caught:
        rebuild(unsampled(project.settings), ["orders"])
    assert said in caught.value.found
    assert caught.value.data == {
        "topic": project.topic,
        "partition": 1,
        "offset": 1,
        "key": "bad",
    }


def test_a_record_without_a_key_is_named(project, produce, db):
    produce(project.topic, [(None, event("OrderDeleted"))], partition=0)
    with pytest.raises(MigratorError, match=r"no key.*partition 0, offset 0"):
        rebuild(unsampled(project.settings), ["orders"])


def test_a_row_without_its_not_null_values_is_explained(project, produce, db):
    produce(project.topic, [("o1", event("OrderShipped", carrier="dhl"))])
    with pytest.raises(Refused, match=r"no value for orders\.customer_id") as caught:
        rebuild(project.settings, ["orders"])
    assert "o1" in caught.value.data["detail"]


def test_a_value_that_its_column_does_not_take_is_named(project, produce, db):
    edit(project, 'self.status = "placed"', 'self.status = "a\\x00b"')
    produce(project.topic, [placed(1)], partition=0)
    with pytest.raises(Refused, match=r"does not take a row of partition 0: .*COPY orders, line 1"):
        rebuild(project.settings, ["orders"])


def test_events_that_came_during_the_rebuild_are_told(project, produce):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    produce(project.topic, [placed(2), placed(3)])
    assert rebuild(project.settings, ["orders"]).projections[0].lag_events == 2


def test_a_handler_that_fails_is_named_with_its_event(project, produce, db):
    edit(project, 'self.status = "placed"', "self.statuss = 1 / 0")
    produce(project.topic, [placed(1)], partition=0)
    with pytest.raises(MigratorError, match=r"ZeroDivisionError.*offset 0, key 'o1'"):
        rebuild(project.settings, ["orders"])


def test_an_empty_topic_is_refused_unless_it_is_meant(project, db):
    with pytest.raises(Refused, match="is empty"):
        rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], Options(allow=frozenset({"empty"})))
    assert count(db) == 0


def test_a_missing_topic_is_named_with_the_nearest_one(project, topic):
    topic("orderz")
    edit(project, f'topic="{project.topic}"', f'topic="{project.topic}x"')
    with pytest.raises(UsageError, match="unknown topic") as caught:
        rebuild(project.settings, ["orders"])
    assert project.topic in caught.value.expected


def test_a_truncated_topic_is_refused_unless_it_is_allowed(project, produce, brokers, db):
    produce(project.topic, [placed(1), placed(2)], partition=0)
    admin = AdminClient({"bootstrap.servers": brokers})
    cut = TopicPartition(project.topic, 0, 1)
    admin.delete_records([cut])[cut].result(30)
    with pytest.raises(Refused, match="partition 0 starts at 1"):
        rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], Options(allow=frozenset({"truncated"})))
    assert count(db) == 1


def test_an_unknown_projection_is_named_with_the_nearest_one(project):
    with pytest.raises(UsageError, match="unknown projection 'order'") as caught:
        rebuild(project.settings, ["order"])
    assert "did you mean orders?" in caught.value.expected


def test_grants_and_the_table_comment_follow_the_cut_over(project, produce, db):
    role = f"reader_{uuid.uuid4().hex[:8]}"
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute(f"CREATE ROLE {role}")
    db.execute(f"GRANT SELECT ON orders TO {role} WITH GRANT OPTION")
    db.execute(f"GRANT UPDATE (status) ON orders TO {role}")
    db.execute("COMMENT ON TABLE orders IS 'what readers see'")
    before = privileges(db)
    rebuild(project.settings, ["orders"])
    assert privileges(db) == before
    db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def privileges(db):
    return db.execute(
        """SELECT relacl::text, obj_description(oid, 'pg_class'),
                  (SELECT attacl::text FROM pg_attribute
                   WHERE attrelid = c.oid AND attname = 'status')
           FROM pg_class c WHERE oid = 'public.orders'::regclass"""
    ).fetchone()


def test_a_live_table_that_was_dropped_by_hand_is_built_again(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute("DROP TABLE orders")
    rebuild(project.settings, ["orders"])
    assert count(db) == 1
    assert states(db) == {1: "dropped", 2: "live"}


def test_default_privileges_of_the_schema_reach_the_first_build(project, produce, db):
    role = f"reader_{uuid.uuid4().hex[:8]}"
    db.execute(f"CREATE ROLE {role}")
    db.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}")
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    assert db.execute(f"SELECT has_table_privilege('{role}', 'orders', 'SELECT')").fetchone() == (
        True,
    )
    db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_hangs_on_the_live_table_hangs_on_the_new_one(project, produce, db):
    produce(project.topic, [placed(n) for n in range(3)])
    rebuild(project.settings, ["orders"])
    db.execute(
        """CREATE VIEW big AS SELECT * FROM orders;
           CREATE TABLE lines (order_id text REFERENCES orders);
           INSERT INTO lines VALUES ('o1');
           CREATE TRIGGER t BEFORE UPDATE ON orders
               FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
           ALTER TABLE orders SET (fillfactor = 70)"""
    )
    produce(project.topic, [placed(3)])
    report = rebuild(project.settings, ["orders"])
    assert report.swapped is not None
    assert report.swapped.unvalidated == ()
    assert count(db, "big") == 4
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        db.execute("DELETE FROM orders WHERE order_id = 'o1'")
    found = db.execute(
        """SELECT reloptions, (SELECT tgname FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal)
           FROM pg_class c WHERE oid = 'public.orders'::regclass"""
    ).fetchone()
    assert found == (["fillfactor=70"], "t")


@pytest.mark.parametrize(
    ("ddl", "named"),
    [
        ("CREATE TABLE held (o orders)", "column o of table public.held, which uses the row type"),
        ("ALTER TABLE orders ADD mine int", "column mine, added by hand"),
    ],
)
def test_what_a_swap_cannot_carry_is_refused_before_anything_is_built(
    project, produce, db, ddl, named
):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute(ddl)
    with pytest.raises(Refused, match="would leave behind") as caught:
        rebuild(project.settings, ["orders"])
    assert named in " ".join(caught.value.data["attachments"])
    assert count(db) == 1
    assert states(db) == {1: "live"}


def test_a_view_that_names_a_column_which_the_class_drops_is_refused_before_anything_is_built(
    project, produce, db
):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute("CREATE VIEW carriers AS SELECT carrier FROM orders")
    edit(project, "carrier: Mapped[str | None]", "")
    edit(project, 'self.status, self.carrier = "shipped", event.carrier', 'self.status = "shipped"')
    with pytest.raises(Refused) as caught:
        rebuild(project.settings, ["orders"])
    assert caught.value.data["attachments"] == [
        "view public.carriers: its column carrier is not there any more"
    ]
    assert states(db) == {1: "live"}


def test_a_dry_run_prints_what_is_carried_over(project, produce, db):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute("CREATE VIEW big AS SELECT * FROM orders; ALTER TABLE orders SET (fillfactor = 70)")
    (planned,), _ = plan(project.settings, ["orders"], Options())
    said = "\n".join(planned.statements)
    assert "ALTER TABLE \"migrator_build_N\".orders SET (fillfactor = '70')" in said
    assert "CREATE OR REPLACE VIEW public.big AS" in said
    assert said.index("BEGIN") < said.index("CREATE OR REPLACE") < said.index("COMMIT")


def test_a_table_that_migrator_did_not_build_is_not_replaced(project, produce, db):
    produce(project.topic, [placed(1)])
    db.execute("CREATE TABLE orders (mine text)")
    with pytest.raises(Refused, match="did not build"):
        rebuild(project.settings, ["orders"])
    assert db.execute("SELECT to_regclass('public.orders')").fetchone() == ("orders",)


def test_the_swap_gives_up_at_its_deadline_and_names_who_is_in_the_way(
    project, produce, db, database_url
):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    db.execute("BEGIN; SELECT * FROM orders")
    hasty = project.settings.model_copy(
        update={
            "projections": project.settings.projections.model_copy(update={"swap_deadline_s": 0.3})
        }
    )
    with pytest.raises(Busy, match="were not free") as caught:
        rebuild(hasty, ["orders"])
    assert "idle in transaction" in caught.value.found
    db.execute("ROLLBACK")
    rebuild(project.settings, ["orders"])
    assert states(db) == {1: "archived", 2: "live"}


def test_a_dry_run_prints_the_sql_and_changes_nothing(project, produce, db):
    produce(project.topic, [placed(1)])
    (planned,), _ = plan(project.settings, ["orders"], Options())
    assert "PRIMARY KEY" in " ".join(planned.statements)
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_a_second_rebuild_of_the_same_projection_is_turned_away(project, produce):
    produce(project.topic, [placed(1)])
    with (
        deployer_lock(project.settings, "rebuild orders"),
        pytest.raises(Busy, match="another run holds"),
    ):
        rebuild(project.settings, ["orders"])


def test_readers_see_no_error_and_no_mixture_while_tables_are_swapped(
    project, produce, db, database_url
):
    produce(project.topic, [placed(n) for n in range(200)])
    rebuild(project.settings, ["orders"])
    stop, seen, errors = threading.Event(), set(), []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            while not stop.is_set():
                try:
                    seen.add(conn.execute("SELECT count(*) FROM orders").fetchone())
                except psycopg.Error as exc:
                    errors.append(exc)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    produce(project.topic, [placed(n) for n in range(200, 300)])
    rebuild(project.settings, ["orders"])
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert seen <= {(200,), (300,)}


def test_a_worker_forgets_the_rows_of_a_partition_that_it_has_committed(project, produce, db):
    for partition in range(2):
        produce(project.topic, [placed(n) for n in range(3_000)], partition=partition)
    ledger.ensure(db)
    registered = registry.load(project.settings.projections_dir)["orders"]
    topic = topics.describe(project.settings.kafka_config, project.topic)
    build = builds.create(db, registered, "public", [topic])
    builds.start_replay(db, build, [topic])
    targets = (Target(build.build, build.schema, "orders", registered.hash),)
    parts = dict.fromkeys(builds.parts_left(db, build, [topic.name]), targets)
    held = {}

    def rows() -> int:
        return sum(type(each).__name__ == "Order" for each in gc.get_objects())

    gc.collect()
    before = rows()  # other tests' own

    def look(said: Progress) -> None:
        # Without a collection: the collector is off while a worker folds.
        held.setdefault(said.partition, rows() - before)

    directory = project.settings.projections_dir
    replay(Task(project.settings, directory, {topic.name: topic.id}, parts, 10**9), look)
    assert list(held.values()) == [1000, 1000]


def test_a_worker_that_outgrows_its_memory_commits_on_the_way(project, produce, db):
    produce(project.topic, [placed(n % 700, total=n) for n in range(20_000)], partition=0)
    ledger.ensure(db)
    registered = registry.load(project.settings.projections_dir)["orders"]
    topic = topics.describe(project.settings.kafka_config, project.topic)
    build = builds.create(db, registered, "public", [topic])
    builds.start_replay(db, build, [topic])
    db.commit()
    (part,) = builds.parts_left(db, build, [topic.name])
    target = Target(build.build, build.schema, "orders", registered.hash)
    committed = set()

    def look(_said: Progress) -> None:
        db.rollback()
        committed.add(builds.positions(db, build.build)[0].next_offset)

    directory = project.settings.projections_dir
    replay(Task(project.settings, directory, {topic.name: topic.id}, {part: (target,)}, 1), look)
    assert len(committed) > 10
    assert max(committed) == part[0].end
    totals = db.execute(f"SELECT sum(total_cents), count(*) FROM {build.schema}.orders").fetchone()
    assert totals == (sum(range(19_300, 20_000)), 700)


def test_a_build_is_frozen_and_analysed_before_it_is_live(project, produce, db):
    produce(project.topic, [placed(n) for n in range(300)])
    rebuild(project.settings, ["orders"], Options(cut_over=False))
    frozen = """SELECT relfrozenxid::text::bigint > n.xmin::text::bigint, reltuples
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE relname = 'orders' AND nspname = 'migrator_build_1'"""
    assert db.execute(frozen).fetchone() == (True, 300)
    statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'migrator_build_1'"
    assert db.execute(statistics).fetchone()[0] > 0
