"""PostgreSQL and Kafka as child processes of the keeper, both started at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from migrator.errors import Busy
from migrator.sandbox import kafka, postgres, server
from migrator.sandbox.plan import Addresses, Plan

_PORT_ATTEMPTS = 5
_UNREADY_DEADLINE_S = 2.0


class _Started(NamedTuple):
    address: str
    pid: int | None


_NOT_ASKED_FOR = _Started("", None)


class Servers:
    def __init__(self, plan: Plan, host: server.Host) -> None:
        self._plan = plan
        self._host = host
        self._ready = False

    def start(self) -> Addresses:
        """Start what the plan names and wait until all of it answers.

        Raises:
            StoppedError: the keeper was asked to stop.
            MigratorError: one does not start; the other is not waited for.
        """
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(self._or_give_up, each) for each in (self._postgres, self._kafka)]
        errors = [error for each in starts if (error := each.exception())]
        # Who was stopped because another failed has nothing to tell.
        for error in sorted(errors, key=lambda each: isinstance(each, server.StoppedError)):
            raise error
        self._ready = True
        database, broker = (each.result() for each in starts)
        return Addresses(database.address, broker.address, database.pid, broker.pid)

    def stop(self) -> None:
        """Stop what runs; a server that is only now starting is not given much time to do so."""
        self._host.stop(self._plan.stop_deadline_s if self._ready else _UNREADY_DEADLINE_S)

    def _or_give_up(self, start: Callable[[], _Started]) -> _Started:
        try:
            return start()
        except BaseException:
            self._host.give_up()
            raise

    def _postgres(self) -> _Started:
        if not self._plan.postgres:
            return _NOT_ASKED_FOR
        home = Path(self._plan.postgres.home)
        data = postgres.initialize(self._host, home)

        def attempt() -> _Started:
            (port,) = server.free_ports(1)
            return _Started(postgres.url(port), postgres.start(self._host, home, data, port).pid)

        return _on_free_ports("PostgreSQL", attempt)

    def _kafka(self) -> _Started:
        if not self._plan.kafka:
            return _NOT_ASKED_FOR
        broker = kafka.Broker(self._host, self._plan.kafka)

        def attempt() -> _Started:
            port, controller_port = server.free_ports(2)
            return _Started(f"127.0.0.1:{port}", broker.start(port, controller_port).pid)

        return _on_free_ports("Kafka", attempt)


def _on_free_ports(name: str, attempt: Callable[[], _Started]) -> _Started:
    for _ in range(_PORT_ATTEMPTS):
        try:
            return attempt()
        except server.PortTakenError:
            continue
    raise Busy(
        f"{name} found its port in use {_PORT_ATTEMPTS} times, each time another one",
        expected="a free port on 127.0.0.1 to stay free for a second",
        next_step="run the command again",
    )
