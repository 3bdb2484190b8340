"""The sandbox with its real servers: they answer, and no end of anybody leaves one behind."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.errors import Busy, CannotConnect, MigratorError
from migrator.sandbox import (
    cache,
    client_program,
    containers,
    embedded,
    launch,
    parts,
    postgres,
    server,
    standing,
    start_sandbox,
    state,
)
from migrator.sandbox.plan import Addresses, KafkaPlan, Plan, PostgresPlan, Ready
from migrator.sandbox.watchdog import Watchdog

DEADLINE_S = 15


def wait_until(holds, what):
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def is_running(pid):
    """Tell whether a process is there and not merely unreaped."""
    told = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True
    )
    return bool(told.stdout.strip()) and not told.stdout.startswith("Z")


def wait_until_gone(pids):
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), f"process {pid} ends")


@pytest.fixture
def temporary(monkeypatch):
    """An own folder for temporary files that `nobody` can reach; nothing may be left in it."""
    folder = Path(tempfile.mkdtemp(prefix="test-sandbox-", dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_state(temporary, monkeypatch):
    """A cache with the real items and a state of its own, beside the developer's."""
    real = cache.cache_dir()
    parts.make_plan("18", "embedded", print, with_kafka=True, standing="x")
    folder = temporary / "cache"
    folder.mkdir(mode=0o755)
    for item in real.iterdir():
        if item.is_dir():
            (folder / item.name).symlink_to(item)
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", str(folder))
    yield folder
    standing.down()


@pytest.fixture
def postgres_only(own_state, monkeypatch):
    """Let `sandbox up` start PostgreSQL alone, where the broker makes no difference."""
    plan = parts.make_plan
    monkeypatch.setattr(
        parts, "make_plan", lambda *given, **named: plan(*given, **{**named, "with_kafka": False})
    )


def run_folders(temporary):
    return list(temporary.glob("migrator-sandbox-*"))


@pytest.fixture
def parent(temporary):
    """Start a process that holds a sandbox and sleeps; it prints the ids of all that belong to it."""
    code = """
        import os, sys, time
        from migrator.sandbox import start_sandbox
        try:
            with start_sandbox(kafka="kafka" in sys.argv, kind="embedded") as sandbox:
                if "fork" in sys.argv and os.fork() == 0:
                    os.close(1)
                    time.sleep(20)
                    os._exit(0)
                print(sandbox.keeper_pid, sandbox.postgres_pid, sandbox.kafka_pid or "", flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
    """
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="class")
def sandbox():
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGSSLMODE", "require")
        environment.setenv("PGPORT", "1")
        environment.setenv("JAVA_TOOL_OPTIONS", "-XX:NoSuchFlag")
        started = start_sandbox(kind="embedded")
    yield started
    started.stop()


class TestTheServers:
    """One sandbox for all that only asks, started among variables that would break servers."""

    @pytest.fixture
    def connection(self, sandbox):
        with psycopg.connect(sandbox.database_url, autocommit=True) as connection:
            yield connection

    def test_postgresql_is_the_default_version(self, connection):
        assert connection.info.server_version // 10000 == 18

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("wal_level", "logical"), ("max_connections", "200"), ("fsync", "off")],
    )
    def test_postgresql_is_set_up_for_a_sandbox(self, connection, setting, value):
        assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,)

    @pytest.mark.parametrize("extension", ["pgcrypto", "pg_trgm", "postgres_fdw", "btree_gist"])
    def test_postgresql_has_the_usual_extensions(self, connection, extension):
        connection.execute(f"CREATE EXTENSION {extension}")  # type: ignore[call-overload]

    def test_the_broker_commits_a_transaction(self, sandbox):
        broker = {"bootstrap.servers": sandbox.bootstrap_servers}
        admin = AdminClient(broker)
        admin.create_topics([NewTopic("topic", 2, 1)])["topic"].result(DEADLINE_S)
        producer = Producer({**broker, "transactional.id": "test"})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        producer.produce("topic", b"value")
        producer.commit_transaction(DEADLINE_S)

    def test_the_broker_makes_no_topic_by_itself(self, sandbox):
        errors = []
        producer = Producer(
            {
                "bootstrap.servers": sandbox.bootstrap_servers,
                "topic.metadata.propagation.max.ms": 1000,
            }
        )

        producer.produce("misspelled", b"value", on_delivery=lambda error, _: errors.append(error))
        producer.flush(DEADLINE_S)

        assert errors[0].name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up rights")
    def test_the_servers_do_not_run_as_root(self, sandbox):
        for pid in (sandbox.postgres_pid, sandbox.kafka_pid):
            told = subprocess.check_output(["ps", "-o", "uid=", "-p", str(pid)], text=True)
            assert int(told) == pwd.getpwnam("nobody").pw_uid

    def test_the_servers_listen_on_loopback_only(self, sandbox, connection):
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert sandbox.bootstrap_servers.startswith("127.0.0.1:")

    def test_the_environment_points_migrator_at_them(self, sandbox):
        assert sandbox.environment() == {
            "MIGRATOR_DATABASE_URL": sandbox.database_url,
            "MIGRATOR_KAFKA_BOOTSTRAP_SERVERS": sandbox.bootstrap_servers,
        }

    def test_psql_and_pg_dump_work_on_it(self, sandbox):
        psql = [client_program("psql"), sandbox.database_url, "-Atc", "SELECT 1"]
        assert subprocess.check_output(psql) == b"1\n"
        dump = [client_program("pg_dump"), "--schema-only", sandbox.database_url]
        assert b"PostgreSQL database dump complete" in subprocess.check_output(dump)


@pytest.mark.parametrize("major", postgres.MAJORS)
def test_each_postgresql_starts_and_leaves_nothing(major, temporary):
    with start_sandbox(postgres=major, kafka=False, kind="embedded") as sandbox:
        with psycopg.connect(sandbox.database_url) as connection:
            assert str(connection.info.server_version // 10000) == major
        assert sandbox.bootstrap_servers == ""
        assert len(run_folders(temporary)) == 1

    assert not any(map(is_running, (sandbox.postgres_pid, sandbox.keeper_pid)))
    assert run_folders(temporary) == []


def test_an_error_in_the_block_stops_the_servers(temporary):
    with pytest.raises(ZeroDivisionError), start_sandbox(kafka=False, kind="embedded") as sandbox:
        raise ZeroDivisionError

    assert not is_running(sandbox.postgres_pid)


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (signal.SIGKILL, ["kafka"]),
        (signal.SIGKILL, ["fork"]),  # a child of the parent's lives on with the keeper's pipe
        (signal.SIGTERM, []),
        (signal.SIGINT, []),
    ],
)
def test_the_servers_end_with_their_parent(parent, temporary, number, arguments):
    process = parent(*arguments)
    pids = [int(pid) for pid in process.stdout.readline().split()]

    process.send_signal(number)

    wait_until_gone(pids)
    wait_until(lambda: run_folders(temporary) == [], "the run folder is removed")
    if number == signal.SIGINT:
        assert process.stdout.read() == "interrupted\n"


def test_ctrl_c_during_the_start_leaves_nothing(parent, temporary):
    process = parent("kafka")
    wait_until(lambda: list(temporary.glob("*/logs/*.log")), "a server is being started")

    process.send_signal(signal.SIGINT)

    assert process.stdout.read() == "interrupted\n"
    assert run_folders(temporary) == []


def test_a_kill_during_the_start_leaves_nothing(parent, temporary):
    process = parent("kafka")
    wait_until(lambda: list(temporary.glob("*/logs/initdb.log")), "a server is being started")

    process.send_signal(signal.SIGKILL)

    wait_until(lambda: run_folders(temporary) == [], "the run folder is removed")


def test_the_servers_end_when_their_keeper_is_killed(parent, temporary):
    pids = [int(pid) for pid in parent("kafka").stdout.readline().split()]

    os.kill(pids[0], signal.SIGKILL)

    wait_until_gone(pids)
    wait_until(lambda: run_folders(temporary) == [], "the run folder is removed")


@pytest.fixture
def damaged(tmp_path):
    """A program that says something and fails, in the place of a server's."""
    folder = Path(tempfile.mkdtemp(prefix="test-damaged-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "bin").mkdir(mode=0o755)
    for name in ("initdb", "postgres", "java"):
        program = folder / "bin" / name
        program.write_text("#!/bin/sh\necho 'what went wrong'\nexit 3\n")
        program.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("which", ["initdb", "kafka-format"])
def test_a_failed_start_keeps_and_names_its_log(damaged, temporary, which):
    broken = {
        "initdb": {"postgres": PostgresPlan(str(damaged))},
        "kafka-format": {"kafka": KafkaPlan(str(damaged / "bin" / "java"), "jars")},
    }
    plan = Plan(parent_pid=os.getpid(), **broken[which])

    with pytest.raises(MigratorError) as failed:
        launch.start_keeper(plan)

    (run_dir,) = run_folders(temporary)
    log = run_dir / "logs" / f"{which}.log"
    assert log.read_text() == "what went wrong\n"
    assert failed.value.data["log"] == str(log)
    assert f"{which} ended with status 3; its log {log} ends with:" in failed.value.found
    assert "  what went wrong" in failed.value.found
    assert [path.name for path in run_dir.iterdir()] == ["logs"]


def test_a_failure_of_one_server_stops_the_start_of_the_other(damaged, temporary):
    good = parts.make_plan("18", "embedded", print, with_kafka=True)
    postgres = PostgresPlan(str(damaged))

    with pytest.raises(MigratorError, match="initdb ended with status 3"):
        launch.start_keeper(Plan(kafka=good.kafka, postgres=postgres, parent_pid=os.getpid()))

    (run_dir,) = run_folders(temporary)
    assert not (run_dir / "logs" / "kafka.log").exists()


@pytest.fixture
def host(temporary):
    """A run folder to start servers in from this process."""
    run_dir = launch._make_run_dir()
    with Watchdog(run_dir) as watchdog:
        host = server.Host(run_dir, watchdog, lambda: False)
        yield host
        host.stop(deadline_s=DEADLINE_S)


def test_a_port_that_was_taken_is_replaced_by_another(host, monkeypatch):
    plan = parts.make_plan("18", "embedded", print, with_kafka=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        free, choices = server.free_ports, {1: [[taken]], 2: [[taken, *server.free_ports(1)]]}
        monkeypatch.setattr(
            server, "free_ports", lambda n: choices[n].pop() if choices[n] else free(n)
        )

        found = embedded.Servers(plan, host).start()

    assert str(taken) not in found.database_url + found.bootstrap_servers
    psycopg.connect(found.database_url).close()
    AdminClient({"bootstrap.servers": found.bootstrap_servers}).list_topics(timeout=DEADLINE_S)


def test_another_server_on_the_port_is_not_taken_for_ours(host):
    home = postgres.install("18", print)
    data = postgres.initialize(host, home)
    with start_sandbox(kafka=False, kind="embedded") as other:
        port = int(other.database_url.split(":")[-1].split("/")[0])
        with pytest.raises(server.PortTakenError):
            postgres.start(host, home, data, port)


def test_a_damaged_aot_cache_does_not_keep_the_broker_from_starting(temporary):
    plan = parts.make_plan("18", "embedded", print, with_kafka=True)
    if not plan.kafka.aot_cache:
        pytest.skip("this Java makes no AOT caches")
    damaged = temporary / "kafka.aot"
    damaged.write_bytes(Path(plan.kafka.aot_cache).read_bytes()[:100_000])
    broken = KafkaPlan(plan.kafka.java, plan.kafka.jars, aot_cache=str(damaged))

    keeper = launch.start_keeper(Plan(kafka=broken, parent_pid=os.getpid()))

    keeper.stop()


class TestStanding:
    """`sandbox up` and `sandbox down`."""

    def test_up_twice_is_one_sandbox_and_down_twice_is_none(self, own_state, temporary):
        first = standing.up(None, "embedded", print)
        second = standing.up(None, "auto", print)
        keeper = state.read(own_state)

        assert (first.was_up, second.was_up) == (False, True)
        assert first.environment() == second.environment()
        with pytest.raises(Busy, match="with PostgreSQL 18"):
            standing.up("17", "auto", print)
        assert standing.down() is True
        assert standing.down() is False
        assert run_folders(temporary) == []
        wait_until_gone([keeper.keeper_pid])

    @pytest.mark.usefixtures("postgres_only")
    def test_up_replaces_a_sandbox_that_does_not_answer(self, own_state):
        standing.up(None, "embedded", print)
        os.kill(state.read(own_state).addresses.postgres_pid, signal.SIGINT)
        lines = []
        wait_until(
            lambda: not standing._answers(state.read(own_state).addresses), "PostgreSQL is down"
        )

        assert not standing.up(None, "embedded", lines.append).was_up

        assert lines == ["The sandbox that is up does not answer; stopping it ..."]

    def test_a_broker_that_is_gone_does_not_answer(self):
        (port,) = server.free_ports(1)

        assert not standing._broker_answers(f"127.0.0.1:{port}")

    def test_a_broker_that_hangs_does_not_answer(self, monkeypatch):
        monkeypatch.setattr(standing, "_ANSWER_TIMEOUT_S", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            assert not standing._broker_answers(f"127.0.0.1:{mute.getsockname()[1]}")

    @pytest.mark.usefixtures("postgres_only")
    def test_up_clears_what_a_killed_keeper_left(self, own_state, temporary):
        first = standing.up(None, "embedded", print)
        found = state.read(own_state)
        os.kill(found.keeper_pid, signal.SIGKILL)
        wait_until(lambda: run_folders(temporary) == [], "the watchdog removes the run folder")
        assert state.read(own_state) == found

        second = standing.up(None, "embedded", print)

        assert not second.was_up
        assert second.log_dir != first.log_dir

    def test_up_waits_for_a_sandbox_that_another_up_is_starting(self, own_state):
        command = [sys.executable, "-m", "migrator", "sandbox", "up"]
        others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]

        answers = {other.communicate(timeout=DEADLINE_S)[0] for other in others}

        assert len(answers) == 1
        assert answers != {b""}

    def test_down_never_signals_a_process_that_is_not_its_keeper(self, own_state):
        with subprocess.Popen(["sleep", "60"]) as bystander:
            # What a machine that was switched off leaves, its id given to another process since.
            ready = Ready(Addresses("", ""), Plan(), run_dir="gone", keeper_pid=bystander.pid)
            state.write(own_state, ready)
            stopped = standing.down()
            is_there = bystander.poll() is None
            bystander.kill()

        assert is_there
        assert stopped is False
        assert state.read(own_state) is None


@pytest.mark.docker
def test_the_servers_run_as_containers():
    try:
        containers.is_chosen("docker")
    except (CannotConnect, MigratorError) as exc:
        pytest.skip(exc.found)
    with start_sandbox(kind="docker") as sandbox:
        psycopg.connect(sandbox.database_url).close()
        admin = AdminClient({"bootstrap.servers": sandbox.bootstrap_servers})
        assert admin.list_topics(timeout=DEADLINE_S).brokers
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(sandbox.database_url, connect_timeout=2)
