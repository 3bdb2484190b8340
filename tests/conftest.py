"""Real servers, one of each per session; a database and a topic prefix per test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import sql

from migrator.executors import executor
from migrator.sandbox import start_sandbox
from migrator.settings import Settings, load
from tests import projects
from tests.fake_neon import FakeNeon

SERVERS = "MIGRATOR_TEST_SERVERS"
KIND = os.environ.get("MIGRATOR_TEST_SANDBOX", "embedded")
POSTGRES = os.environ.get("MIGRATOR_TEST_POSTGRES", "18")


def pytest_configure(config: pytest.Config) -> None:
    """Under xdist the controller starts the servers, and its workers inherit where they are."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # Started in the background of a shell; the commands under test must hear Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    workers = getattr(config.option, "numprocesses", None)
    if workers and not hasattr(config, "workerinput") and not _unit_only(config):
        sandbox = start_sandbox(kind=KIND, postgres=POSTGRES)
        config.add_cleanup(sandbox.stop)
        os.environ[SERVERS] = json.dumps([sandbox.database_url, sandbox.bootstrap_servers])


def _unit_only(config: pytest.Config) -> bool:
    return bool(config.args) and all("unit" in Path(arg).parts for arg in config.args)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(
            ("MIGRATOR_", "PG", "DATABASE_URL", "GITHUB_", "NEON_")
        ) and name not in (
            SERVERS,
            "MIGRATOR_CACHE_DIR",
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[str, str]]:
    """The URL of a PostgreSQL and the address of a Kafka broker."""
    if SERVERS in os.environ:
        database_url, brokers = json.loads(os.environ[SERVERS])
        yield database_url, brokers
        return
    with start_sandbox(kind=KIND, postgres=POSTGRES) as sandbox:
        yield sandbox.database_url, sandbox.bootstrap_servers


@pytest.fixture
def database_url(servers: tuple[str, str]) -> Iterator[str]:
    """A fresh, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(servers[0], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield servers[0].rpartition("/")[0] + f"/{name}"
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session of the test's own, in autocommit."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def role(db: psycopg.Connection[tuple[Any, ...]]) -> Iterator[str]:
    """A fresh role that may log in and nothing more."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    db.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    db.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def brokers(servers: tuple[str, str]) -> str:
    return servers[1]


@pytest.fixture
def make_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """`make_settings(root)`: the settings of a project in `root`, on this test's database."""

    def made(root: Path, **overrides: Any) -> Settings:
        monkeypatch.chdir(root)
        monkeypatch.setenv("MIGRATOR_DATABASE_URL", request.getfixturevalue("database_url"))
        monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", request.getfixturevalue("brokers"))
        return load(overrides=overrides)

    return made


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays run here, one task after the other: no process is started for the rebuilds of a test."""

    class InProcess:
        def run(self, function: Any, tasks: Any, on_report: Any, _renew: Any) -> None:
            for task in tasks:
                function(task, on_report)

    monkeypatch.setattr(executor, "chosen", lambda _settings: InProcess())


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`cli("up", "--dry-run")` in this process, with stdout and stderr apart."""
    from migrator.cli import root

    def run(*args: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(root, [*args], input=stdin, prog_name="migrator")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def start_up() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_up(MIGRATOR_...="1")`: `migrator --json up` as a process, which does not outlive the test.

    No transaction is long to it: on a loaded machine the test's own would become so meanwhile.
    """
    started = []

    def start(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "migrator", "--json", "up"],
            env={**os.environ, "MIGRATOR_DATABASE__LONG_TRANSACTION_S": "600", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def topic(brokers: str) -> Iterator[Callable[..., str]]:
    """`topic("orders", partitions=4)` makes a topic of this test's own and returns its name."""
    admin, made = AdminClient({"bootstrap.servers": brokers, "log_level": 0}), []
    prefix = f"t{uuid.uuid4().hex[:12]}"

    def make(name: str = "events", *, partitions: int = 4, **config: str) -> str:
        full = f"{prefix}.{name}"
        new = NewTopic(full, partitions, 1, config={"retention.ms": "-1", **config})
        admin.create_topics([new])[full].result(30)
        made.append(full)
        return full

    yield make
    if made:
        for deleted in admin.delete_topics(made).values():
            deleted.result(30)


@pytest.fixture
def project(
    tmp_path: Path, make_settings: Callable[..., Settings], topic: Callable[..., str]
) -> SimpleNamespace:
    """A project with an `orders` projection over a topic of its own: settings, topic, root."""
    name = topic("orders")
    projects.write(tmp_path, projects.ORDERS.format(topic=name))
    return SimpleNamespace(settings=make_settings(tmp_path), topic=name, root=tmp_path)


@pytest.fixture
def produce(brokers: str) -> Callable[..., None]:
    """`produce(topic, [(key, value), ...])`: value a dict, bytes, or None for a tombstone."""

    def send(
        topic: str,
        records: list[tuple[str | bytes | None, Any]],
        *,
        partition: int = -1,
        transactional: bool = False,
        abort: bool = False,
    ) -> None:
        config: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "partitioner": "murmur2_random",
            "max.in.flight": 1,  # or what is sent again comes out of its order
            "log_level": 0,
        }
        if transactional:
            config["transactional.id"] = uuid.uuid4().hex
        producer = Producer(config)
        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for key, value in records:
            payload = json.dumps(value).encode() if isinstance(value, dict) else value
            producer.produce(topic, payload, key, partition=partition)
            producer.poll(0)
        assert producer.flush(60) == 0
        if transactional:
            (producer.abort_transaction if abort else producer.commit_transaction)(30)

    return send


@pytest.fixture
def fake_neon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeNeon]]:
    """`fake_neon(database_url)`: a fake Neon that the settings name; without a URL it has no databases.

    Where the published description can be had, every exchange is held to it.
    """
    from migrator.neon import transport
    from tests.fake_neon import openapi, server

    try:
        contract = openapi.contract()
    except openapi.Unavailable:
        contract = None
    monkeypatch.setattr(transport, "PACE", transport.Pace(0.001, 0.01, 0.002))
    with ExitStack() as stack:

        def start(url: str | None = None) -> FakeNeon:
            fake = stack.enter_context(FakeNeon(url, contract))
            monkeypatch.setenv("MIGRATOR_NEON_API_KEY", server.KEY)
            monkeypatch.setenv("MIGRATOR_NEON_PROJECT_ID", fake.project.id)
            monkeypatch.setenv("MIGRATOR_NEON_BASE_URL", fake.base_url)
            started.append(fake)
            return fake

        started: list[FakeNeon] = []
        yield start
    assert [wrong for fake in started for wrong in fake.violations] == []


@pytest.fixture
def neon(
    database_url: str, monkeypatch: pytest.MonkeyPatch, fake_neon: Callable[..., FakeNeon]
) -> FakeNeon:
    """A fake Neon whose branch `main` is this test's database; the settings name both."""
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url)
    return fake_neon(database_url)
