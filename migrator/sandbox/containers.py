"""The same servers as containers, where a Docker engine answers."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import secrets
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from migrator.errors import CannotConnect, MigratorError
from migrator.sandbox import artifacts, kafka, postgres
from migrator.sandbox.plan import Addresses, ImagesPlan, Plan

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_DEFAULT_ENGINE = "unix:///var/run/docker.sock"
_PING_TIMEOUT_S = 2
_READY_DEADLINE_S = 120
_POSTGRES_PORT = 5432
_KAFKA_PORT = 9092
_START_SCRIPT = "/tmp/migrator-start.sh"  # noqa: S108 -- in a container of our own


def is_chosen(kind: str) -> bool:
    """Decide between containers and embedded servers; `auto` needs an engine that answers now.

    A docker client on PATH says nothing: only a ping counts.

    Raises:
        UsageError: `docker` was asked for without its packages.
        CannotConnect: `docker` was asked for, and no engine answers.
    """
    if kind == "embedded":
        return False
    installed = all(map(importlib.util.find_spec, ("testcontainers", "docker")))
    if kind == "auto":
        return installed and engine_answers()
    if not installed:
        raise artifacts.extra_is_missing("testcontainers", extra="docker")
    if engine_answers():
        return True
    raise CannotConnect(
        "no Docker engine answers",
        expected="a running Docker engine that this user may use",
        next_step="start Docker, or leave out --sandbox docker: the embedded servers need none",
    )


def engine_answers() -> bool:
    """Ping the engine that testcontainers would use."""
    from testcontainers.core.docker_client import get_docker_host

    docker: Any = importlib.import_module("docker")  # it has no types
    host = get_docker_host() or _DEFAULT_ENGINE
    if host.startswith("unix://") and not _accepts(host.removeprefix("unix://")):
        return False
    environment = {**os.environ, "DOCKER_HOST": host}
    try:
        client = docker.from_env(timeout=_PING_TIMEOUT_S, environment=environment)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # noqa: BLE001 -- whatever goes wrong, no engine answers
        return False


def _accepts(path: str) -> bool:
    """Tell whether somebody listens on the socket; docker's client leaks one if nobody does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PING_TIMEOUT_S)
        return client.connect_ex(path) == 0


def images(major: str, *, with_kafka: bool) -> ImagesPlan:
    return ImagesPlan(f"postgres:{major}", f"apache/kafka:{kafka.VERSION}" if with_kafka else "")


class Containers:
    """The containers of one sandbox; testcontainers' reaper removes them if the keeper is killed."""

    def __init__(self, plan: Plan) -> None:
        assert plan.images
        self._images = plan.images
        self._started = ExitStack()

    def start(self) -> Addresses:
        """Start the containers and wait until both servers answer.

        Raises:
            MigratorError: an image cannot be pulled, or a server does not start.
        """
        try:
            url = self._start_postgres(self._images.postgres)
            broker = self._start_kafka(self._images.kafka) if self._images.kafka else ""
        except Exception as exc:
            raise MigratorError(
                f"the containers do not start: {exc}",
                expected=f"{' and '.join(self._images.names)} to be pulled and to run",
                next_step="read the message of Docker above, or use --sandbox embedded",
            ) from exc
        return Addresses(url, broker)

    def stop(self) -> None:
        self._started.close()

    def _start_postgres(self, image: str) -> str:
        from testcontainers.community.postgres import PostgresContainer

        password = secrets.token_urlsafe(16)
        settings = [f"--{name}={value}" for name, value in postgres.SETTINGS.items()]
        container = PostgresContainer(
            image, username="postgres", password=password, dbname="postgres", driver=None
        )
        container.with_command(["postgres", *settings])
        _publish_locally(container, _POSTGRES_PORT)
        self._started.callback(container.stop)
        container.start()
        return f"postgresql://postgres:{password}@{_address(container, _POSTGRES_PORT)}/postgres"

    def _start_kafka(self, image: str) -> str:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        # The broker must announce the port on this machine, which is known only once the container
        # runs: it waits for a script that carries it.
        waiting = f"while [ ! -s {_START_SCRIPT} ]; do sleep 0.1; done; exec bash {_START_SCRIPT}"
        container = DockerContainer(image)
        container.with_exposed_ports(_KAFKA_PORT)
        container.with_kwargs(entrypoint=["sh", "-c", waiting])
        _publish_locally(container, _KAFKA_PORT)
        self._started.callback(container.stop)
        container.start()
        address = _address(container, _KAFKA_PORT)
        container.copy_into_container(start_script(address).encode(), _START_SCRIPT)
        started = LogMessageWaitStrategy(re.compile("Kafka Server started"))
        started.with_startup_timeout(_READY_DEADLINE_S).wait_until_ready(container)
        return address


def start_script(address: str) -> str:
    """Write the script that configures the broker of the image by its environment."""
    settings = {
        "NODE_ID": 1,
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": f"PLAINTEXT://:{_KAFKA_PORT},BROKER://:9095,CONTROLLER://:9094",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{address},BROKER://localhost:9095",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,"
        "CONTROLLER:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "BROKER",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
        "OFFSETS_TOPIC_NUM_PARTITIONS": 4,
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
        "TRANSACTION_STATE_LOG_MIN_ISR": 1,
        "TRANSACTION_STATE_LOG_NUM_PARTITIONS": 4,
        "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": 1,
        "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": 1,
        "GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
        "AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    lines = [f"export KAFKA_{name}='{value}'" for name, value in settings.items()]
    return "\n".join([*lines, "exec /etc/kafka/docker/run", ""])


def _publish_locally(container: DockerContainer, port: int) -> None:
    """Publish the port on this machine's loopback, unless the engine is on another machine."""
    if container.get_docker_client().host() == "localhost":
        published: Any = ("127.0.0.1", None)
        container.ports[port] = published


def _address(container: DockerContainer, port: int) -> str:
    host = container.get_container_host_ip().replace("localhost", "127.0.0.1")
    return f"{host}:{container.get_exposed_port(port)}"
