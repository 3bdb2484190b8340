"""The preflight: every pitfall of a log is told before anything is built, with the flag that allows it."""

from __future__ import annotations

import json
import random
import uuid

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
)

from migrator.errors import MigratorError, Refused, UsageError
from migrator.executors import local
from migrator.projections.rebuild import Options, plan, rebuild
from tests.projects import count, edit, event, placed, remake, states

NOTHING = Options()


@pytest.fixture
def admin(brokers):
    return AdminClient({"bootstrap.servers": brokers, "log_level": 0})


def allowing(*names, **more):
    return Options(allow=frozenset(names), **more)


def refused(project, *, options=NOTHING, settings=None):
    """What the preflight says; a dry run says the same."""
    settings = settings or project.settings
    _, seen = plan(settings, ["orders"], options)
    with pytest.raises(Refused) as caught:
        rebuild(settings, ["orders"], options)
    # The age of an event goes on, so not to the end.
    assert caught.value.found[:60] == "\n".join(f.found for f in seen.refused)[:60]
    return caught.value


def recorded(db):
    return db.execute("SELECT allowed FROM migrator.build ORDER BY build DESC LIMIT 1").fetchone()[
        0
    ]


def delete_before(admin, topic, offset, partition=0):
    cut = TopicPartition(topic, partition, offset)
    admin.delete_records([cut])[cut].result(30)


def configure(admin, topic, **settings):
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(30)


def test_a_truncated_log_is_refused_and_the_flag_is_kept_in_the_build(project, produce, admin, db):
    produce(project.topic, [placed(1), placed(2)], partition=0)
    delete_before(admin, project.topic, 1)
    said = refused(project)
    assert "partition 0 starts at 1" in said.found
    assert "--allow truncated" in said.next_step
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)
    rebuild(project.settings, ["orders"], allowing("truncated", "empty"))
    assert count(db) == 1
    assert recorded(db) == ["truncated"]


def test_everything_that_is_refused_is_told_at_once(project, produce, admin):
    produce(project.topic, [placed(1), ("o2", event("Strange"))], partition=0)
    configure(admin, project.topic, cleanup_policy="compact")
    said = refused(project)
    assert "is compacted" in said.found
    assert "no handler for 'Strange'" in said.found
    assert [f["rule"] for f in said.data["findings"]] == ["compacted", "unhandled"]


def test_a_name_after_allow_that_is_none_is_told_with_the_nearest(project):
    with pytest.raises(UsageError, match="'truncate'") as caught:
        rebuild(project.settings, ["orders"], allowing("truncate"))
    assert "did you mean truncated" in caught.value.expected


def test_a_compacted_topic_is_refused_unless_it_is_allowed(project, produce, admin, db):
    produce(project.topic, [placed(1)])
    configure(admin, project.topic, cleanup_policy="compact,delete")
    said = refused(project)
    assert "cleanup.policy=compact,delete" in said.found
    assert "--allow compacted" in said.next_step
    rebuild(project.settings, ["orders"], allowing("compacted"))
    assert recorded(db) == ["compacted"]


def test_a_beginning_that_retention_is_about_to_take_is_refused(project, produce, admin, db):
    produce(project.topic, [placed(1)])
    configure(admin, project.topic, retention_ms="300000")
    said = refused(project)
    assert "keeps events for 5 min" in said.found
    assert "retention.ms=-1" in said.next_step
    configure(admin, project.topic, retention_ms="86400000")
    rebuild(project.settings, ["orders"])
    assert recorded(db) is None


@pytest.fixture
def hanging(project, produce, brokers):
    """A transaction that stays open over the topic's end, with one event behind it."""
    produce(project.topic, [placed(1)], partition=0)
    producer = Producer(
        {"bootstrap.servers": brokers, "transactional.id": uuid.uuid4().hex, "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(project.topic, b"{}", b"k", partition=0)
    assert producer.flush(30) == 0
    produce(project.topic, [placed(2)], partition=0)
    yield producer
    producer.abort_transaction(30)


def patient(settings, seconds):
    projections = settings.projections.model_copy(update={"hanging_transaction_s": seconds})
    return settings.model_copy(update={"projections": projections})


def test_a_hanging_transaction_is_refused_unless_it_is_allowed(project, hanging, db):
    settings = patient(project.settings, 0.3)
    said = refused(project, settings=settings)
    assert "partition 0 at offset 1 (written up to 3)" in said.found
    assert "--allow hanging" in said.next_step
    rebuild(settings, ["orders"], allowing("hanging"))
    assert db.execute("SELECT order_id FROM orders").fetchall() == [("o1",)]
    assert recorded(db) == ["hanging"]


def test_an_open_transaction_that_ends_in_time_is_no_hanging_one(project, produce, brokers, db):
    from migrator.kafka import topics

    produce(project.topic, [placed(1)], partition=0)
    producer = Producer(
        {"bootstrap.servers": brokers, "transactional.id": uuid.uuid4().hex, "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(project.topic, b"{}", b"k", partition=0)
    assert producer.flush(30) == 0
    kafka = project.settings.kafka_config
    topic = topics.describe(kafka, project.topic)
    assert topics.stuck(kafka, topic, 0) == {0: (1, 2)}
    producer.abort_transaction(30)
    assert topics.stuck(kafka, topic, 30) == {}


def test_a_key_in_two_partitions_is_refused_before_anything_is_read(project, produce, db):
    produce(project.topic, [placed(1), ("o1", None)], partition=0)
    produce(project.topic, [placed(1)], partition=3)
    said = refused(project)
    assert "'o1' in 0 and 3" in said.found
    rebuild(project.settings, ["orders"], allowing("split-keys"))
    assert count(db) == 1


def test_a_record_without_a_key_is_refused_with_its_place(project, produce):
    produce(project.topic, [placed(1), (None, event("OrderDeleted"))], partition=2)
    said = refused(project)
    assert "partition 2, offset 1, key None" in said.found
    assert "key=lambda event" in said.next_step


def test_a_record_without_a_key_that_nobody_folds_is_none(project, produce, db):
    produce(project.topic, [placed(1), (None, event("OrderSeen"))])
    rebuild(project.settings, ["orders"])
    assert count(db) == 1


def test_records_without_keys_under_an_own_key_are_refused_unless_allowed(project, produce, db):
    edit(
        project,
        f'topic="{project.topic}")',
        f'topic="{project.topic}", key=lambda e: e.customer_id, co_partitioned=True)',
    )
    edit(project, 'ignores = ("OrderSeen",)', 'ignores = ("OrderSeen", Tombstone)')
    produce(project.topic, [(None, placed(1)[1])], partition=1)
    assert "go to any partition" in refused(project).found
    rebuild(project.settings, ["orders"], allowing("null-keys"))
    assert count(db) == 1


def test_an_event_type_that_nobody_handles_is_named_before_the_replay(project, produce, db):
    produce(project.topic, [placed(1), ("o1", event("OrderTouched"))], partition=3)
    said = refused(project)
    assert "no handler for 'OrderTouched'" in said.found
    assert said.data["offset"] == 1
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_an_event_that_does_not_decode_is_named_before_the_replay(project, produce, db):
    produce(
        project.topic, [("o1", event("OrderPlaced", customer_id=3, total_cents=1))], partition=1
    )
    said = refused(project)
    assert "Expected `str`" in said.found
    assert said.data == {"topic": project.topic, "partition": 1, "offset": 0, "key": "o1"}
    with pytest.raises(MigratorError, match="does not decode"):
        rebuild(project.settings, ["orders"], allowing("undecodable"))
    assert states(db) == {1: "replaying"}


@pytest.fixture
def unfinished(project, produce, db, monkeypatch):
    """A build whose replay was lost after its positions were made."""
    produce(project.topic, [placed(n) for n in range(20)])
    with monkeypatch.context() as lost:
        lost.setattr(local, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rebuild(project.settings, ["orders"])
    assert states(db) == {1: "replaying"}
    return project


def test_a_topic_made_anew_since_the_build_began_is_refused_until_restart(
    unfinished, produce, admin, db
):
    name = unfinished.topic
    remake(admin, name, 4)
    produce(name, [placed(n) for n in range(40)])
    said = refused(unfinished)
    assert "deleted and made anew" in said.found
    assert "--restart --projection orders" in said.next_step
    rebuild(unfinished.settings, ["orders"], Options(restart=True))
    assert count(db) == 40


def test_partitions_added_since_the_build_began_are_refused_until_restart(unfinished, admin, db):
    name = unfinished.topic
    admin.create_partitions([NewPartitions(name, 6)])[name].result(30)
    said = refused(unfinished)
    assert "has 6 partitions now, and had 4" in said.found
    rebuild(unfinished.settings, ["orders"], Options(restart=True))
    assert count(db) == 20


def test_a_log_cut_since_the_build_began_is_refused_until_restart(unfinished, admin, db):
    delete_before(admin, unfinished.topic, 2, partition=0)
    said = refused(unfinished, options=allowing("truncated"))
    assert "partition 0" in said.found
    assert "begins at 2, and the build has read up to 0" in said.found
    rebuild(unfinished.settings, ["orders"], allowing("truncated", restart=True))
    assert states(db) == {1: "aborted", 2: "live"}


def test_a_topic_made_anew_during_the_replay_does_not_go_live(
    project, produce, admin, db, monkeypatch
):
    name = project.topic
    produce(name, [placed(n) for n in range(20)])
    run = local.run

    def run_beside_a_deletion(*args):
        remake(admin, name, 4)
        produce(name, [placed(n, total=7) for n in range(40)])
        run(*args)

    monkeypatch.setattr(local, "run", run_beside_a_deletion)
    with pytest.raises(MigratorError, match="made anew"):
        rebuild(project.settings, ["orders"])
    assert db.execute("SELECT to_regclass('public.orders')").fetchone() == (None,)


def test_a_table_that_does_not_fit_the_disk_is_refused(project, produce, monkeypatch):
    from migrator.projections import estimate

    produce(project.topic, [placed(1)])
    monkeypatch.setattr(estimate, "_free", lambda _conn: 10)
    said = refused(project)
    assert "PostgreSQL's disk has 10 B left" in said.found
    assert "--allow disk" in said.next_step


def test_a_dry_run_tells_findings_and_estimates_and_refuses(project, produce, cli, admin):
    produce(project.topic, [placed(n) for n in range(50)])
    _, seen = plan(project.settings, ["orders"], Options())
    (estimate,) = seen.estimates
    assert (estimate.events, estimate.rows_low, estimate.rows_high) == (50, 50, 50)
    assert estimate.bytes_off == 0
    assert estimate.disk_free_bytes is None or estimate.disk_free_bytes > 0
    configure(admin, project.topic, cleanup_policy="compact")
    shown = cli("rebuild-projections", "--all", "--dry-run")
    assert shown.exit_code == 3
    assert "refused (compacted)" in shown.stdout
    assert "50 rows (all keys)" in shown.stdout
    told = json.loads(cli("--json", "rebuild-projections", "--all", "--dry-run").stdout)
    assert [f["rule"] for f in told["preflight"]["findings"]] == ["compacted"]
    assert told["preflight"]["estimates"][0]["rows"] == 50
    allowed = cli("rebuild-projections", "--all", "--dry-run", "--allow", "compacted")
    assert allowed.exit_code == 0
    assert "allowed (compacted)" in allowed.stdout


def test_a_sample_tells_events_bytes_and_keys_of_the_whole_within_its_error(project, produce):
    chance = random.Random(7)
    records = [placed(chance.randrange(3000)) for _ in range(12_000)]
    produce(project.topic, records)
    _, seen = plan(project.settings, ["orders"], Options())
    (estimate,) = seen.estimates
    assert estimate.sampled < 6000
    assert estimate.events == 12_000
    exact = sum(len(json.dumps(value)) + len(key) for key, value in records)
    assert abs(estimate.bytes - exact) <= 2 * estimate.bytes_off
    assert estimate.bytes_off < exact / 20
    assert estimate.rows_low <= len({key for key, _ in records}) <= estimate.rows_high
    assert estimate.rows_high < 6000


def test_a_bad_event_is_found_at_the_end_of_a_long_partition(project, produce):
    produce(project.topic, [placed(n) for n in range(9000)], partition=0)
    produce(project.topic, [("o1", event("Newest"))], partition=0)
    assert "no handler for 'Newest'" in refused(project).found
