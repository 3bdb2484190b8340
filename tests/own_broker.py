"""A Kafka broker of a test's own, which may be killed and started again on the same folder."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrator.sandbox import kafka, machine, parts, server
from migrator.sandbox.watchdog import Watchdog


class OwnBroker:
    """Runs from the start; `address` stays the same over restarts."""

    def __init__(self, host: server.Host) -> None:
        plan = parts.make_plan("18", "embedded", lambda _line: None, with_kafka=True)
        self._host = host
        self._broker = kafka.Broker(host, plan.kafka)
        self._port, controller = server.free_ports(2)
        self._server = self._broker.start(self._port, controller)
        self.address = f"127.0.0.1:{self._port}"

    @property
    def is_running(self) -> bool:
        return self._server.process.poll() is None

    def kill(self) -> None:
        self._server.process.kill()
        self._server.process.wait()
        self._host.drop(self._server)

    def restart(self) -> None:
        """Start it again on the folder that `kill` left."""
        settings = str(self._host.run_dir / "server.properties")
        command = self._broker._java("kafka.Kafka", settings)
        folder = self._broker._folder
        self._server = server.launch(self._host, "kafka", command, folder, signal.SIGTERM)
        probe = kafka._Probe(self._port, self._broker._cluster_id)
        server.await_ready(
            self._host, self._server, lambda: server.listens(self._port) and probe.answers()
        )

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it answer nothing, as a machine that hangs."""
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._server.pid, signal.SIGCONT)


@contextmanager
def own_broker() -> Iterator[OwnBroker]:
    run_dir = Path(tempfile.mkdtemp(prefix="migrator-test-"))
    run_dir.chmod(0o711)
    (run_dir / "logs").mkdir()
    machine.hand_over(run_dir)
    try:
        with Watchdog(run_dir) as watchdog:
            host = server.Host(run_dir, watchdog, lambda: False)
            try:
                yield OwnBroker(host)
            finally:
                host.stop(5)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
