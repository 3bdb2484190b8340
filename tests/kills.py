"""Kill a rebuild, its workers and its servers at random, over and over, and look at what comes of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.own_broker import OwnBroker
from tests.own_server import OwnServer
from tests.projects import ORDERS, event, write

CUSTOMERS = """
    from migrator import Projection, on
    from projections.orders import OrderPlaced
    from sqlalchemy.orm import Mapped, mapped_column


    class Customer(Projection, topic="orders", key=lambda e: e.customer_id, co_partitioned=True):
        __tablename__ = "customers"
        ignores = ("OrderShipped", "OrderDeleted", "OrderSeen", "Tombstone")

        customer_id: Mapped[str] = mapped_column(primary_key=True)
        orders: Mapped[int] = mapped_column(default=0)
        spent: Mapped[int] = mapped_column(default=0)

        @on(OrderPlaced)
        def placed(self, event: OrderPlaced) -> None:
            self.orders += 1
            self.spent += event.total_cents
"""
# Its keys lie in every partition: what each has folded is merged.
REMAINDERS = """
    from migrator import Projection, count, latest, maximum, total
    from projections.orders import OrderPlaced
    from sqlalchemy import BigInteger
    from sqlalchemy.orm import Mapped, mapped_column


    class Remainder(Projection, topic="orders", key=lambda e: e.total_cents % 997):
        __tablename__ = "remainders"
        ignores = ("OrderShipped", "OrderDeleted", "OrderSeen", "Tombstone")

        remainder: Mapped[int] = mapped_column(primary_key=True)
        orders: Mapped[int] = count(OrderPlaced)
        cents: Mapped[int] = total(OrderPlaced, lambda e: e.total_cents, type_=BigInteger)
        most: Mapped[int] = maximum(OrderPlaced, lambda e: e.total_cents)
        customer: Mapped[str] = latest(
            OrderPlaced, lambda e: e.customer_id, by=lambda e: e.total_cents // 5000
        )
"""
TOML = """
[projections]
memory_mb = 16
workers = 2
"""
# What a run may end with when something under it was killed: failed, busy, cannot connect.
PARDONED = {1, 4, 5, -signal.SIGKILL}
PARTITIONS = 4
# Partition 0 has nothing to put into quarantine, 1 what does not decode, 3 what does not fold.
POISON = 0.005
BROKEN = {1: b"?", 2: b"", 3: b""}
QUARANTINED = """
    SELECT b.projection, q.topic, q.partition, q.event_offset, q.key, q.value
    FROM migrator.quarantine AS q JOIN migrator.build AS b USING (build)
    WHERE b.state = 'live' ORDER BY 1, 2, 3, 4
"""
PLACED = 'self.status = "placed"'
BREAKING = f"""{PLACED}
            if event.total_cents < 0:
                raise ValueError("less than nothing")"""
GIVE_UP_S = 120.0


@dataclass
class Rebuilds:
    """One rebuild after the other, on servers that may be killed."""

    root: Path
    server: OwnServer
    broker: OwnBroker
    random: random.Random
    running: subprocess.Popen[bytes] | None = None
    finished: int = 0
    killed: list[str] = field(default_factory=list)
    expected: Any = None

    def prepare(self, events: int) -> None:
        """Write the project and a log with aborted transactions; rebuild once, undisturbed."""
        write(self.root, ORDERS.format(topic="orders").replace(PLACED, BREAKING))
        write(self.root, CUSTOMERS, "customers.py")
        write(self.root, REMAINDERS, "remainders.py")
        (self.root / "migrator.toml").write_text(TOML)
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        admin.create_topics([NewTopic("orders", PARTITIONS, 1)])["orders"].result(30)
        for number in range(4):
            self._produce(range(number, events, 4), abort=number == 2)
        self.start()
        assert self.wait() == 0
        self.expected = self.rows()
        assert {partition for _, _, partition, *_ in self.expected[-1]} == {1, 3}

    def _produce(self, numbers: range, *, abort: bool) -> None:
        producer = Producer(
            {"bootstrap.servers": self.broker.address, "transactional.id": f"t{numbers.start}"}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        for number in numbers:
            partition = number % PARTITIONS
            key = f"o{partition}-{self.random.randrange(numbers.stop // 8)}"
            value = event(
                "OrderPlaced", customer_id=f"c{partition}-{number % 50}", total_cents=number
            )
            if self.random.random() < 0.05:
                value = event("OrderDeleted")
            payload = json.dumps(value).encode()
            if self.random.random() < POISON and partition:
                payload = (
                    payload.replace(b'"total_cents": ', b'"total_cents": -') + BROKEN[partition]
                )
            producer.produce("orders", payload, key, partition=partition)
            producer.poll(0)
        (producer.abort_transaction if abort else producer.commit_transaction)(30)

    def start(self) -> None:
        self.running = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "migrator",
                "rebuild-projections",
                "--all",
                "--quarantine",
                "1000",
            ],
            cwd=self.root,
            env={
                **os.environ,
                "MIGRATOR_DATABASE_URL": self.server.url,
                "MIGRATOR_KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait(self, seconds: float = GIVE_UP_S) -> int | None:
        """The exit code of the run, None where it goes on; looks at the rows where it is done."""
        assert self.running is not None
        try:
            said, _ = self.running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        code = self.running.returncode
        assert code == 0 or code in PARDONED, said.decode()
        self.running = None
        if code == 0 and self.expected is not None:
            assert self.rows() == self.expected
            self.finished += 1
        return code

    def kill_something(self, within_s: float) -> None:
        """Let a run go on for a random while, then kill it, a process of its, or a server."""
        if self.running is None:
            self.start()
        if self.wait(self.random.uniform(0, within_s)) is not None:
            self.start()
        assert self.running is not None
        victim = self.random.choice(["worker", "parent", "PostgreSQL", "Kafka"])
        self.killed.append(victim)
        match victim:
            case "worker":
                children = descendants(self.running.pid)
                with suppress(ProcessLookupError, IndexError):
                    os.kill(self.random.choice(children), signal.SIGKILL)
            case "parent":
                self.running.kill()
            case "PostgreSQL":
                self.server.restart()
            case "Kafka":
                self.broker.kill()
                self.broker.restart()

    def finish(self) -> None:
        """Run the command until it has done its work; it may have to wait for what was killed."""
        limit = time.monotonic() + GIVE_UP_S
        if self.running is None:
            self.start()
        while self.wait() != 0:
            assert time.monotonic() < limit, "the command does not finish"
            self.start()

    def rows(self) -> Any:
        with psycopg.connect(self.server.url) as conn:
            return [
                conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # type: ignore[arg-type]
                for table in ("orders", "customers", "remainders")
            ] + [conn.execute(QUARANTINED).fetchall()]


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]
