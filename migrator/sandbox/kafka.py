"""An embedded Apache Kafka: its jars, and one KRaft broker on a new, throw-away data folder."""

from __future__ import annotations

import base64
import signal
import uuid
from importlib import resources
from pathlib import Path

from migrator.sandbox import artifacts, cache, server
from migrator.sandbox.plan import KafkaPlan

VERSION = "4.3.1"
# Quick to start rather than quick for days. An AOT cache fits only the collector it was made with.
_JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def install(say: cache.Say) -> Path:
    """Give the folder of the broker's jars, downloaded once."""

    def build(folder: Path) -> None:
        say(f"Fetching Kafka {VERSION} ({len(pinned)} jars, 42 MB) ...")
        artifacts.fetch(pinned, folder)

    pinned = artifacts.read_lock("kafka.lock")
    return cache.fill(f"kafka-{VERSION}-{artifacts.lock_digest('kafka.lock')}", build, say)


class Broker:
    """A data folder and the broker on it, which may be started again on other ports."""

    def __init__(self, host: server.Host, plan: KafkaPlan) -> None:
        self._host = host
        self._plan = plan
        self._folder = host.make_folder("kafka")
        self._cluster_id = _new_cluster_id()

    def start(self, port: int, controller_port: int) -> server.Server:
        """Start the broker on `port` and wait until it answers a metadata request.

        Raises:
            PortTakenError: one of the two ports is in use.
            MigratorError: it does not start.
        """
        settings = self._write_settings(port, controller_port)
        self._format(settings)
        output = self._plan.aot_output
        flags = [f"-XX:AOTCacheOutput={output}"] if output else []
        command = self._java(*flags, "kafka.Kafka", str(settings))
        started = server.launch(self._host, "kafka", command, self._folder, signal.SIGTERM)
        probe = _Probe(port, self._cluster_id)
        server.await_ready(self._host, started, lambda: server.listens(port) and probe.answers())
        return started

    def _write_settings(self, port: int, controller_port: int) -> Path:
        template = resources.files("migrator.sandbox").joinpath("server.properties")
        settings = self._host.run_dir / "server.properties"
        text = template.read_text(encoding="utf-8").format(
            port=port,
            controller_port=controller_port,
            data=self._folder / f"data-{port}",
        )
        settings.write_text(text, encoding="utf-8")
        settings.chmod(0o644)
        return settings

    def _format(self, settings: Path) -> None:
        arguments = ["format", "-t", self._cluster_id, "-c", str(settings), "--standalone"]
        command = self._java("kafka.tools.StorageTool", *arguments)
        server.run(self._host, "kafka-format", command, self._folder)

    def _java(self, *arguments: str) -> list[str]:
        jars = sorted(str(jar) for jar in Path(self._plan.jars).glob("*.jar"))
        cached = self._plan.aot_cache
        return [
            self._plan.java,
            *_JVM,
            f"-Djava.io.tmpdir={self._folder}",
            # Its warnings about stubs that do not fit this processor would fill the log.
            *([f"-XX:AOTCache={cached}", "-Xlog:aot*=error"] if cached else []),
            "-cp",
            ":".join(jars),
            *arguments,
        ]


def _new_cluster_id() -> str:
    # One that began with a dash would be an option to Kafka's tools.
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _new_cluster_id() if text.startswith("-") else text


class _Probe:
    """One client over all attempts; it knows its broker by the cluster id."""

    def __init__(self, port: int, cluster_id: str) -> None:
        from confluent_kafka.admin import AdminClient

        self._cluster_id = cluster_id
        self._client = AdminClient(
            {
                "bootstrap.servers": f"127.0.0.1:{port}",
                "log_level": 0,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 50,
            }
        )

    def answers(self) -> bool:
        from confluent_kafka import KafkaException

        try:
            metadata = self._client.list_topics(timeout=1)
        except KafkaException:
            return False
        return bool(metadata.brokers) and metadata.cluster_id == self._cluster_id
