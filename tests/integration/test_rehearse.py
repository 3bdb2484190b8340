"""Rehearsing a deployment: what a copy tells before production is touched, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from migrator.deploy import copies, plan
from migrator.deploy import rehearse as rehearsals
from migrator.deploy.local_copies import LocalCopies
from migrator.errors import Busy, CannotConnect, MigratorError, Refused
from migrator.kafka import topics
from migrator.migrations.up import up
from migrator.postgres import rehearsal, snapshot
from migrator.projections.rebuild import rebuild
from tests import conftest, revisions
from tests.own_server import own_server
from tests.projects import edit, placed, revision, states

TABLE = "CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, note text)"
ROWS = "INSERT INTO orders SELECT n, 'c' || n % 7, 'note ' || n FROM generate_series(1, 100) AS n"


@pytest.fixture
def server(servers):
    """A session on the server that is not on the test's database: that one is to be copied."""
    with psycopg.connect(servers[0], autocommit=True) as conn:
        yield conn


@pytest.fixture
def settings(tmp_path, make_settings, database_url):
    """Revision 0001 is applied, its table has rows, and nobody is connected."""
    revisions.write(tmp_path, "0001", f"op.execute({TABLE!r})", rollback="DROP TABLE orders;")
    made = make_settings(tmp_path)
    up(made)
    with psycopg.connect(database_url) as conn:
        conn.execute(ROWS)
    return made


@pytest.fixture
def add(tmp_path):
    """`add("ALTER ...", "ALTER ...")`: the next pending revision, each with its rollback script."""
    last = ["0001"]

    def write(upgrade, rollback, phase="expand"):
        number = f"{int(last[0]) + 1:04}"
        upgrade = upgrade if upgrade.startswith(("op.", "with ")) else f"op.execute({upgrade!r})"
        head = f"phase = {phase!r}"
        revisions.write(tmp_path, number, upgrade, revises=last[0], rollback=rollback, head=head)
        last[0] = number

    return write


@pytest.fixture
def run(cli, server):
    """`run(...)`: exit code and JSON document of the command; afterwards no copy is there."""

    def command(*args):
        result = cli("--json", "rehearse", *args)
        assert left(server) == []
        return result.exit_code, json.loads(result.stdout)

    return command


def left(server, source=None):
    """The copies of this test's database; others run at the same time."""
    name = source or os.environ["MIGRATOR_DATABASE_URL"].rpartition("/")[2]
    rows = server.execute(
        """SELECT datname FROM pg_database
           WHERE datname ~ '^migrator_rehearsal_' AND shobj_description(oid, 'pg_database') ~ %s""",
        (name,),
    )
    return [name for (name,) in rows]


@pytest.fixture
def role(server):
    """A fresh role that may log in and nothing more; nobody is connected to the test's database."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def problems(document):
    return [(each["kind"], each["subject"]) for each in document["problems"]]


@contextmanager
def looked_at(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


# What is wrong with a plan


def test_each_thing_that_is_wrong_with_a_plan_is_named(project, produce, run, server):
    produce(project.topic, [placed(n, total=-1) for n in range(20)])
    revision(project, "0001", None, "CREATE TABLE t (a int)", "SELECT 1;")
    slow = "ALTER TABLE t ADD COLUMN b int; SELECT pg_sleep(0.3)"
    revision(project, "0002", "0001", slow, "ALTER TABLE t DROP COLUMN b;")
    code, said = run("--max-lock-ms", "250", "--max-rebuild-s", "0.01")
    assert code == 3
    assert problems(said) == [
        ("rollback", "0001"),
        ("lock", "0002"),
        ("check", "orders: totals are positive"),
        ("slow", "orders"),
    ]
    assert said["outcome"] == "failed"
    assert "table public.t is there, and was not before" in said["problems"][0]["found"]
    assert "ACCESS EXCLUSIVE on table public.t" in said["problems"][1]["found"]


CONCURRENTLY = revisions.CONCURRENTLY.replace('"t"', '"orders"').format(kwargs="").strip()
LOST = "-- loses: the values of orders.customer, dropped by this revision: it comes back empty\n"
AGAIN = (
    "CREATE TABLE orders (id bigint PRIMARY KEY, amount int); CREATE INDEX t_a ON orders (amount);"
)
SCRIPTS = [
    (
        "ALTER TABLE orders ADD COLUMN amount int",
        "SELECT 1;",
        "column public.orders.amount is there, and was not before",
    ),
    (
        "CREATE INDEX orders_note ON orders (note)",
        "DROP INDEX orders_other;",
        'index "orders_other" does not exist',
    ),
    (
        "ALTER TABLE orders ALTER COLUMN customer DROP NOT NULL",
        "DELETE FROM orders WHERE id > 50; ALTER TABLE orders ALTER COLUMN customer SET NOT NULL;",
        "the rows of public.orders are not what they were",
    ),
    (
        "UPDATE orders SET customer = lower(customer) || '!' WHERE id = 7",
        "-- loses: the old names of invoices\nSELECT 1;",
        "the rows of public.orders.customer are not what they were",
    ),
    (
        "ALTER TABLE orders ALTER COLUMN id TYPE bigint",
        "ALTER TABLE orders ALTER COLUMN id TYPE int;",
        None,
    ),
    (
        "ALTER TABLE orders DROP COLUMN note",
        "ALTER TABLE orders ADD COLUMN note text;",
        "the rows of public.orders.note are not what they were",
    ),
    (
        "ALTER TABLE orders DROP COLUMN customer",
        f"{LOST}ALTER TABLE orders ADD COLUMN customer text;",
        None,
    ),
    (
        CONCURRENTLY.replace('["a"]', '["amount"]'),
        "-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS other;",
        "index public.t_a is there, and was not before",
    ),
    (
        "DROP TABLE orders",
        f"-- loses: the rows of orders\n{AGAIN}; ALTER TABLE orders OWNER TO pg_monitor;",
        "table public.orders: owner is pg_monitor, was postgres",
    ),
]


def test_each_rollback_script_is_held_to_what_was_before_its_revision(settings, add, run):
    """A wrong one is taken back: what follows it stands on what production will have."""
    for upgrade, rollback, _ in SCRIPTS:
        add(upgrade, rollback, "contract")
    code, document = run("--phase", "contract")
    assert code == 3
    found = {each["subject"]: each["found"] for each in document["problems"]}
    for number, (one, (_, _, said)) in enumerate(
        zip(document["revisions"], SCRIPTS, strict=True), 2
    ):
        assert one["proof"] == ("proven" if said is None else "wrong"), one
        assert (said or "") in found.get(f"{number:04}", "")
    assert {each["kind"] for each in document["problems"]} == {"rollback"}


def test_columns_that_an_earlier_revision_of_the_plan_adds_have_nothing_to_lose(settings, add, run):
    drop = "ALTER TABLE orders DROP COLUMN region;"
    add("ALTER TABLE orders ADD COLUMN region text", drop, "contract")
    add("UPDATE orders SET region = 'north'", "SELECT 1;", "contract")
    assert run("--phase", "contract")[0] == 0


def test_a_revision_that_fails_is_named_and_those_after_it_are_not_reached(settings, add, run):
    add("ALTER TABLE orders ADD CONSTRAINT few CHECK (id < 50)", "SELECT 1;", "contract")
    add("ALTER TABLE orders ADD COLUMN b int", "ALTER TABLE orders DROP COLUMN b;", "contract")
    code, said = run("--phase", "contract")
    assert (code, problems(said), said["not_reached"]) == (3, [("revision", "0002")], ["0003"])
    assert "is violated by some row" in said["problems"][0]["found"]


def test_a_script_that_would_act_on_the_whole_server_is_not_run(settings, add, run, server, role):
    add("ALTER TABLE orders ADD COLUMN a int", f'DROP ROLE "{role}";')
    code, said = run()
    assert code == 0
    (one,) = said["revisions"]
    assert one["proof"] == (
        f'not run: it acts on what all databases of the server share (DROP ROLE "{role}")'
    )
    assert server.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() == ()


def test_a_statement_on_the_whole_server_is_passed_over(settings, add, run, server):
    add("CREATE ROLE rehearsed_role; ALTER TABLE orders ADD COLUMN a int", "SELECT 1;")
    said = run()[1]
    assert said["revisions"][0]["up"]["passed_over"] == ["CREATE ROLE rehearsed_role"]
    assert (
        server.execute("SELECT FROM pg_roles WHERE rolname = 'rehearsed_role'").fetchone() is None
    )


# What production should expect


LOCKED = {
    "ALTER TABLE orders ADD COLUMN a int": "ACCESS EXCLUSIVE",
    "CREATE INDEX orders_note ON orders (note)": "SHARE",
    "CREATE TABLE child (a int REFERENCES orders)": "SHARE ROW EXCLUSIVE",
    "ALTER TABLE orders ALTER COLUMN note SET STATISTICS 10": "SHARE UPDATE EXCLUSIVE",
    "UPDATE orders SET note = 'x' WHERE id = 1": "ROW EXCLUSIVE",
    "DO $$ BEGIN EXECUTE 'LOCK TABLE orders IN EXCLUSIVE MODE'; END $$": "EXCLUSIVE",
    "CREATE TABLE alone (a int); CREATE INDEX ON alone (a)": None,
}


def test_the_strongest_lock_of_each_revision_is_the_one_that_the_real_run_takes(
    settings, add, run, database_url
):
    """Advisory locks are of one database: what holds the real run up does not hold up the copy."""
    for number, statement in enumerate(LOCKED, 2):
        gate = f"SELECT pg_advisory_xact_lock_shared({number})"
        add(f"{statement}; {gate}", "SELECT 1;", "contract")
    said = run("--phase", "contract")[1]
    predicted = [each["up"]["strongest_lock"] for each in said["revisions"]]
    assert predicted == list(LOCKED.values())
    assert really_taken(settings, database_url, range(2, len(LOCKED) + 2)) == predicted


def really_taken(settings, database_url, gates):
    """Apply the revisions, each held up at its gate, and read there what it has locked."""
    found = []
    command = [sys.executable, "-m", "migrator", "up"]
    patient = {**os.environ, "MIGRATOR_DATABASE__LOCK_TIMEOUT_MS": "60000"}
    with looked_at(database_url) as conn:
        held = known(conn)
        for gate in gates:
            conn.execute("SELECT pg_advisory_lock(%s)", (gate,))
        process = subprocess.Popen(command, env=patient, stdout=subprocess.DEVNULL)
        for gate in gates:
            pid = awaited(conn, gate)
            found.append(strongest(conn, pid, held))
            held = known(conn)
            conn.execute("SELECT pg_advisory_unlock(%s)", (gate,))
        assert process.wait(60) == 0
    return found


def known(conn):
    rows = conn.execute(
        "SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ 'alembic'"
    )
    return [oid for (oid,) in rows]


def awaited(conn, gate):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        row = conn.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
            (gate,),
        ).fetchone()
        if row is not None:
            return row[0]
    raise AssertionError(f"nobody has come to gate {gate}")


ORDER = ["ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE"]
ORDER += ["SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"]


def strongest(conn, pid, relations):
    rows = conn.execute(
        "SELECT mode FROM pg_locks WHERE pid = %s AND relation = ANY(%s) AND granted",
        (pid, relations),
    )
    spelled = {name.title().replace(" ", "") + "Lock": name for name in ORDER}
    return max((spelled[mode] for (mode,) in rows), key=ORDER.index, default=None)


@pytest.mark.chaos
def test_an_index_built_concurrently_is_said_to_keep_nobody_out(
    settings, add, run, database_url, start_up
):
    add(
        CONCURRENTLY.replace('["a"]', '["note"]'),
        "-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS t_a;",
    )
    one = run()[1]["revisions"][0]
    assert one["up"]["strongest_lock"] == "SHARE UPDATE EXCLUSIVE"
    assert one["rollback"]["strongest_lock"] == "SHARE UPDATE EXCLUSIVE"
    with looked_at(database_url) as conn, psycopg.connect(database_url) as writer:
        writer.execute("UPDATE orders SET note = 'y' WHERE id = 1")
        relations = known(conn)
        process = start_up()
        deadline = time.monotonic() + 60
        taken = None
        while taken is None and time.monotonic() < deadline:
            row = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'migrator up' AND query ~ 'CONCURRENTLY' AND state = 'active'"
            ).fetchone()
            taken = row and strongest(conn, row[0], relations)
        writer.rollback()
        assert process.wait(60) == 0
    assert taken == one["up"]["strongest_lock"]


def test_a_rewrite_is_told_with_its_table(settings, add, run):
    add(
        "ALTER TABLE orders ALTER COLUMN id TYPE bigint",
        "ALTER TABLE orders ALTER COLUMN id TYPE int;",
        "contract",
    )
    (one,) = run("--phase", "contract")[1]["revisions"]
    assert [each["table"] for each in one["up"]["rewritten"]] == ["public.orders"]
    assert one["up"]["wal_bytes"] > 0


def test_a_rebuild_is_cut_over_in_the_copy_and_swapped_back(project, produce, run, server, brokers):
    produce(project.topic, [placed(n) for n in range(20)])
    rebuild(project.settings, ["orders"])
    edit(project, '"placed"', '"new"')
    produce(project.topic, [placed(n) for n in range(20, 30)])
    before = topics.describe(project.settings.kafka_config, project.topic)
    code, said = run()
    assert (code, said["problems"]) == (0, [])
    (one,) = said["rebuild"]["projections"]
    assert (one["rows"], said["rebuild"]["went_back"]) == (30, "proven")
    with psycopg.connect(project.settings.conninfo) as conn:
        assert states(conn) == {1: "live"}
    assert topics.describe(project.settings.kafka_config, project.topic) == before
    assert groups_that_read(project.topic, brokers) == []


def groups_that_read(topic, brokers):
    """Tests beside this one have theirs, of other topics."""
    admin = AdminClient({"bootstrap.servers": brokers})
    found = []
    for group in admin.list_consumer_groups().result(30).valid:
        asked = ConsumerGroupTopicPartitions(group.group_id)
        (offsets,) = admin.list_consumer_group_offsets([asked]).values()
        if any(each.topic == topic for each in offsets.result(30).topic_partitions):
            found.append(group.group_id)
    return found


def test_the_text_names_what_to_expect_and_what_a_copy_cannot_tell(settings, add, cli, tmp_path):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    file = tmp_path / "report.md"
    result = cli("rehearse", "--report", str(file))
    assert "strongest lock ACCESS EXCLUSIVE" in result.stdout
    assert "A copy cannot tell:" in result.stdout
    assert "No problem found" in file.read_text(encoding="utf-8")


# What production gets


def test_production_gets_one_row_and_nothing_else(settings, add, run, database_url):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    planned = plan.read(settings)
    with looked_at(database_url) as conn:
        before = snapshot.read(conn), everything(conn)
    run()
    with looked_at(database_url) as conn:
        after = snapshot.read(conn), everything(conn)
        recorded = rehearsal.latest(conn, planned.hash)
        (report,) = conn.execute("SELECT report FROM migrator.rehearsal").fetchone()
    assert after[1].pop("rehearsal") == 1
    assert before[1].pop("rehearsal") == 0
    assert after == before
    assert (recorded.outcome, recorded.rehearsal) == ("passed", 1)
    assert report["revisions"][0]["up"]["strongest_lock"] == "ACCESS EXCLUSIVE"


def everything(conn):
    """How many rows each of our tables has."""
    names = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'migrator'::regnamespace AND relkind = 'r'"
    ).fetchall()
    return {n: conn.execute(f"SELECT count(*) FROM migrator.{n}").fetchone()[0] for (n,) in names}


def test_another_plan_has_no_rehearsal(settings, add, run, database_url):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    run()
    add("ALTER TABLE orders ADD COLUMN b int", "ALTER TABLE orders DROP COLUMN b;")
    with looked_at(database_url) as conn:
        assert rehearsal.latest(conn, plan.read(settings).hash) is None


def test_with_nothing_pending_nothing_is_copied_or_recorded(settings, run, database_url):
    code, said = run()
    assert (code, said["copy"], said["rehearsal"]) == (0, None, None)
    with looked_at(database_url) as conn:
        assert everything(conn)["rehearsal"] == 0


# Copies that cannot be made, and copies that are left


def test_who_is_connected_is_named(settings, add, database_url):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    with psycopg.connect(database_url, application_name="shop/12") as conn:
        with pytest.raises(Busy) as caught:
            rehearse(settings)
        assert f"process {conn.info.backend_pid} of postgres (shop/12)" in caught.value.found
    assert "--copy dump" in caught.value.next_step


def rehearse(settings, by="template", **options):
    return rehearsals.rehearse(settings, LocalCopies(settings, by), rehearsals.Options(**options))


@pytest.mark.parametrize("by", ["dump", "schema"])
def test_beside_traffic_a_copy_is_made_by_pg_dump(settings, add, run, database_url, by):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;", "contract")
    add("UPDATE orders SET note = 'x'", "SELECT 1;", "contract")
    with psycopg.connect(database_url):
        code, said = run("--copy", by, "--phase", "contract")
    # Without rows, nothing can be lost.
    assert problems(said) == ([("rollback", "0003")] if by == "dump" else [])
    assert code == (3 if by == "dump" else 0)
    assert said["revisions"][0]["up"]["strongest_lock"] == "ACCESS EXCLUSIVE"


@pytest.mark.parametrize("by", ["template", "schema"])
def test_the_first_revision_of_an_empty_database_is_proven(tmp_path, make_settings, run, by):
    revisions.write(tmp_path, "0001", f"op.execute({TABLE!r})", rollback="DROP TABLE orders;")
    make_settings(tmp_path)
    code, said = run("--copy", by)
    assert (code, said["revisions"][0]["proof"]) == (0, "proven")


def test_a_role_that_may_not_make_a_copy_is_told_what_it_needs(settings, add, role, server):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    server.execute(f'GRANT pg_read_all_data TO "{role}"')
    with pytest.raises(MigratorError) as caught:
        rehearse(as_role(settings, role))
    assert role in caught.value.found
    assert "CREATEDB" in caught.value.next_step
    assert left(server) == []


def as_role(settings, role):
    url = settings.database.url.get_secret_value().replace("postgres@", f"{role}@")
    database = settings.database.model_copy(update={"url": type(settings.database.url)(url)})
    return settings.model_copy(update={"database": database})


def test_files_that_do_not_fit_the_database_are_refused_before_a_copy(
    settings, add, tmp_path, server
):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    up(settings)
    for file in (tmp_path / "migrations" / "versions").glob("0002*"):
        file.unlink()
    revisions.write(tmp_path, "0009", revises="0001")
    with pytest.raises(Refused, match="holds 0002, which this checkout has no file for"):
        rehearse(settings)
    assert left(server) == []


def test_a_deployment_that_comes_between_plan_and_copy_is_noticed(settings, add, server):
    class Meanwhile(LocalCopies):
        def make(self, say):
            up(self.settings)
            return super().make(say)

    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    with pytest.raises(Refused, match="the copy has another plan"):
        rehearsals.rehearse(settings, Meanwhile(settings, "template"))
    assert left(server) == []


def test_a_server_with_no_session_left_ends_it_and_keeps_no_copy(settings, add, role, server):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    server.execute(f'ALTER ROLE "{role}" SUPERUSER')
    server.execute(f'ALTER ROLE "{role}" NOSUPERUSER CREATEDB CONNECTION LIMIT 3')
    with psycopg.connect(settings.conninfo) as conn:
        conn.execute(f'ALTER DATABASE "{conn.info.dbname}" OWNER TO "{role}"')
        conn.execute(f'ALTER SCHEMA migrator OWNER TO "{role}"; GRANT pg_read_all_data TO "{role}"')
        conn.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA migrator TO "{role}"')
    try:
        few = as_role(settings, role)
        with pytest.raises(CannotConnect, match="too many connections"):
            rehearse(few)
        assert left(server) == []
    finally:
        with psycopg.connect(settings.conninfo) as conn:
            conn.execute(f'REASSIGN OWNED BY "{role}" TO postgres; DROP OWNED BY "{role}"')


def test_a_full_disk_ends_it_and_says_nothing_of_the_revision(settings, add, server, database_url):
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    add(full, "SELECT 1;", "contract")
    with pytest.raises(MigratorError) as caught:
        rehearse(settings, phase="contract")
    assert caught.value.exit_code == 1
    assert left(server) == []
    with looked_at(database_url) as conn:
        assert everything(conn)["rehearsal"] == 0


def test_a_run_that_was_killed_leaves_its_copy_to_the_next_one(
    settings, add, server, cli, tmp_path
):
    add("SELECT 1", "SELECT 1;")
    killed = subprocess.Popen(
        [sys.executable, "-m", "migrator", "rehearse"], stderr=subprocess.DEVNULL
    )
    copy = appeared(server, killed)
    killed.send_signal(signal.SIGSTOP)
    maker = LocalCopies(settings, "template")
    assert copy not in maker.sweep()
    assert copy in left(server)
    killed.kill()
    killed.wait(30)
    deadline = time.monotonic() + 30
    while copy in left(server):
        maker.sweep()
        assert time.monotonic() < deadline


def appeared(server, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := left(server):
            return found[0]
    raise AssertionError("no copy has appeared")


def test_a_copy_that_is_kept_is_not_swept(settings, add, server):
    add("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders DROP COLUMN a;")
    done = rehearse(settings, keep=True)
    try:
        assert done.copy.name not in LocalCopies(settings, "template").sweep()
        assert left(server) == [done.copy.name]
        with psycopg.connect(done.copy.settings.conninfo) as conn:
            assert conn.execute("SELECT count(a) FROM orders").fetchone() == (0,)
    finally:
        server.execute(f"DROP DATABASE {done.copy.name}")


def test_an_error_within_the_block_drops_the_copy(settings, server):
    def interrupted():
        with copies.made(LocalCopies(settings, "template"), keep=True, say=print) as copy:
            assert left(server) == [copy.name]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(server) == []


def test_a_copy_has_the_settings_of_its_database(settings, database_url):
    with looked_at(database_url) as conn:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET search_path = shop, public")
    with (
        copies.made(LocalCopies(settings, "template"), keep=False, say=print) as copy,
        psycopg.connect(copy.settings.conninfo) as conn,
    ):
        assert conn.execute("SHOW search_path").fetchone() == ("shop, public",)


@pytest.mark.chaos
def test_a_server_that_is_lost_leaves_the_copy_to_the_next_rehearsal(
    tmp_path, make_settings, monkeypatch
):
    with own_server(conftest.POSTGRES) as server:
        settings = make_settings(tmp_path, database={"url": server.url, "deadline_s": 1})
        revisions.write(tmp_path, "0001", f"op.execute({TABLE!r})", rollback="DROP TABLE orders;")
        monkeypatch.setattr("builtins.stop_the_server", server.stop, raising=False)
        revisions.write(tmp_path, "0002", "stop_the_server()", revises="0001")
        with pytest.raises(CannotConnect):
            rehearse(settings)
        server.start()
        with psycopg.connect(server.url) as conn:
            assert len(left(conn, "postgres")) == 1
        assert len(LocalCopies(settings, "template").sweep()) == 1
