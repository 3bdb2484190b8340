"""The process that owns a sandbox: it starts the servers and ends them, whatever ends its parent.

Started with a plan as its argument, it writes one line to stdout: that the servers answer, or why
not. It stops them when its stdin ends (its parent stopped it, exited or was killed), or at SIGTERM
where it stands by itself. Its own end by SIGKILL is the watchdog's business.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

import msgspec

from migrator.errors import Busy, MigratorError
from migrator.sandbox import kafka, postgres, server
from migrator.sandbox.plan import Answer, Failed, Plan, Ready
from migrator.sandbox.watchdog import Watchdog

_PORT_ATTEMPTS = 5
_LOOK_S = 1.0


class StopRequest:
    """Whether the sandbox is no longer wanted."""

    def __init__(self, parent_pid: int | None) -> None:
        self._parent_pid = parent_pid
        self._read, self._write = os.pipe()
        signal.signal(signal.SIGTERM, self._ask)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

    def asked(self, timeout_s: float = 0.0) -> bool:
        """Wait up to `timeout_s` for a request; it stays asked once it was."""
        watched = [self._read] if self._parent_pid is None else [self._read, 0]
        # A child forked by the parent may hold the pipe open; the parent's id tells even then.
        return bool(select.select(watched, [], [], timeout_s)[0]) or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self._parent_pid is not None and os.getppid() != self._parent_pid

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        os.write(self._write, b"!")


class EmbeddedServers:
    """PostgreSQL and Kafka as our child processes."""

    def __init__(self, plan: Plan, host: server.Host) -> None:
        self._plan = plan
        self._host = host
        self._running: list[server.Server] = []

    def start(self) -> Ready:
        """Start both at the same time."""
        with ThreadPoolExecutor(2) as pool:
            database = pool.submit(self._start_postgres)
            broker = pool.submit(self._start_kafka)
        url, postgres_pid = database.result()
        address, kafka_pid = broker.result()
        return Ready(
            database_url=url,
            bootstrap_servers=address,
            postgres_pid=postgres_pid,
            kafka_pid=kafka_pid,
            keeper_pid=os.getpid(),
            log_dir=str(self._host.log_dir),
            postgres_major=self._plan.postgres_major,
            kind=self._plan.kind,
        )

    def stop(self) -> None:
        server.stop(self._running, self._host.watchdog, self._plan.stop_deadline_s)

    def _start_postgres(self) -> tuple[str, int | None]:
        if not self._plan.postgres:
            return "", None
        home = Path(self._plan.postgres.home)
        data = postgres.initialize(self._host, home)

        def attempt() -> tuple[str, int | None]:
            (port,) = server.free_ports(1)
            started = postgres.start(self._host, home, data, port)
            self._running.append(started)
            return postgres.url(port), started.pid

        return _with_free_ports("PostgreSQL", attempt)

    def _start_kafka(self) -> tuple[str, int | None]:
        if not self._plan.kafka:
            return "", None
        broker = kafka.Broker(self._host, self._plan.kafka)

        def attempt() -> tuple[str, int | None]:
            port, controller_port = server.free_ports(2)
            started = broker.start(port, controller_port)
            self._running.append(started)
            return f"127.0.0.1:{port}", started.pid

        return _with_free_ports("Kafka", attempt)
