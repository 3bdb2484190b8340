"""Swap a table to and fro under two projectors, ours and the one of docs/, and kill what one can."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch
from uuid import uuid4

from confluent_kafka import Producer

from migrator.errors import Busy
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import registry, swap, tail, writers
from migrator.projections.move import Move
from migrator.projections.rebuild import rebuild
from migrator.settings import Settings
from tests.projects import write

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "projector.py"
PARTITIONS = 4
KEYS = 40
GIVE_UP_S = 60.0
ASLEEP_S = 1.6
ACCOUNTS = """
    from migrator import Event, Projection, on
    from sqlalchemy import BigInteger
    from sqlalchemy.orm import Mapped, mapped_column


    class Paid(Event):
        cents: int


    class Closed(Event):
        pass


    class Account(Projection, topic="{topic}"):
        __tablename__ = "accounts"

        account_id: Mapped[str] = mapped_column(primary_key=True)
        balance: Mapped[int] = mapped_column(BigInteger, default=0)
        payments: Mapped[int] = mapped_column(default=0)
        last_cents: Mapped[int | None]

        @on(Paid)
        def paid(self, event: Paid) -> None:
            self.balance += event.cents
            self.payments += 1
            self.last_cents = event.cents

        @on(Closed)
        def closed(self, event: Closed) -> None:
            self.delete()
"""


class Log:
    """Writes payments all the time, and keeps what it has written, by partition and offset."""

    def __init__(self, brokers: str, topic: str, turns: random.Random) -> None:
        self.records: dict[int, dict[int, tuple[str, int | None]]] = defaultdict(dict)
        self._topic = topic
        self._turns = random.Random(turns.random())
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0, "linger.ms": 1})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self.some(200)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def some(self, count: int) -> None:
        for _ in range(count):
            number = self._turns.randrange(KEYS)
            cents = None if self._turns.random() < 0.05 else self._turns.randrange(-500, 1000)
            event = {"type": "Closed", "data": {}} if cents is None else None
            event = event or {"type": "Paid", "data": {"cents": cents}}
            self._producer.produce(
                self._topic,
                json.dumps(event).encode(),
                f"a{number}",
                partition=number % PARTITIONS,
                on_delivery=self._delivered(f"a{number}", cents),
            )
        assert self._producer.flush(GIVE_UP_S) == 0

    def _delivered(self, key: str, cents: int | None) -> Any:
        def note(error: Any, message: Any) -> None:
            assert error is None
            self.records[message.partition()][message.offset()] = (key, cents)

        return note

    def _write(self) -> None:
        while not self._stop.wait(0.01):
            self.some(self._turns.randrange(1, 6))

    def replayed(self, offsets: dict[int, int]) -> list[tuple[str, int, int, int]]:
        """The rows that these offsets make, said naively."""
        rows: dict[str, tuple[int, int, int]] = {}
        for partition, end in offsets.items():
            for offset in range(end):
                key, cents = self.records[partition][offset]
                if cents is None:
                    rows.pop(key, None)
                else:
                    balance, payments, _ = rows.get(key, (0, 0, 0))
                    rows[key] = (balance + cents, payments + 1, cents)
        return sorted((key, *row) for key, row in rows.items())


@dataclass
class Told:
    """What has happened, for whoever asks."""

    swaps: int = 0
    looks: int = 0
    events: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)


class HandOver:
    """Two projectors of one group, and a swap at a time between two builds of one definition."""

    def __init__(self, settings: Settings, root: Path, topic: str, turns: random.Random) -> None:
        self.told = Told()
        self._settings = settings
        self._topic = topic
        self._turns = turns
        self._hash = registry.load(root / "projections")["accounts"].hash
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._entry: int | None = None

    def run(self, log: Log, swaps: int) -> None:
        """Swap so many times, then let everything come to rest, and look."""
        began = time.perf_counter()
        with connect(self._settings, "hand-over", autocommit=True) as conn:
            self._entry = self._newest(conn)
            for name in ("migrator", "example"):
                self._start(name)
            try:
                self._swap_about(conn, log, swaps)
                log.end()
                self._await_all(conn, log)
                self._look(conn, log)
            finally:
                for process in self._running.values():
                    process.kill()
                    process.wait()
            self.told.events = sum(map(len, log.records.values()))
            self.told.seconds = time.perf_counter() - began

    def _swap_about(self, conn: Any, log: Log, swaps: int) -> None:
        while self.told.swaps < swaps:
            self._disturb(conn)
            before = self._reached(conn)
            if self._swap():
                self.told.swaps += 1
                if self.told.swaps % 10 == 0:
                    self._look(conn, log)
            # Some batches between: not always, since a swap may follow a swap.
            if self._turns.random() < 0.5:
                self._await(lambda: self._reached(conn) > before)  # noqa: B023 - it is over at once

    def _swap(self) -> bool:
        """One swap, of which some are aborted just before they would commit."""
        aborted = self._turns.random() < 0.1
        with connect(self._settings, "swap", autocommit=True) as conn:
            (incoming,) = builds.find(conn, "accounts", ["archived"])
            (outgoing,) = builds.find(conn, "accounts", ["live"])
            moves = [Move(incoming, outgoing, undoes=self._entry)]
            if self._turns.random() < 0.5:  # else the projectors apply what it lacks
                moves = tail.with_definitions(self._settings, moves)
            try:
                with patch.object(swap.ledger, "append", _abort) if aborted else nullcontext():
                    done = swap.swap(conn, self._settings, moves, run=uuid4(), reason="to and fro")
            except (_Aborted, Busy) as exc:
                self.told.happened[type(exc).__name__] += 1
                return False
        (self._entry,) = done.entries
        return True

    def _disturb(self, conn: Any) -> None:
        """Kill a process or a session, now and then."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended by itself with {process.returncode}")
        if self._turns.random() < 0.1:
            name = self._turns.choice(list(self._running))
            self._running[name].send_signal(signal.SIGKILL)
            self._running[name].wait()
            self.told.happened[f"{name} killed"] += 1
            self._start(name)
        if self._turns.random() < 0.1:
            # Longer than its session: it wakes up in the belief that its partitions are still its own.
            name = self._turns.choice(list(self._running))
            self._running[name].send_signal(signal.SIGSTOP)
            woken = threading.Timer(ASLEEP_S, self._running[name].send_signal, [signal.SIGCONT])
            woken.start()
            self.told.happened[f"{name} asleep"] += 1
        if self._turns.random() < 0.15:
            ended = conn.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name IN ('migrator follow accounts', 'accounts projector')
                     AND datname = current_database() ORDER BY random() LIMIT 1"""
            ).fetchall()
            self.told.happened["session ended"] += len(ended)

    def _start(self, name: str) -> None:
        ours = [sys.executable, "-m", "migrator", "follow", "--projection", "accounts", "--wait"]
        command = ours if name == "migrator" else [sys.executable, str(EXAMPLE)]
        url = self._settings.conninfo
        environment = {
            **os.environ,
            "MIGRATOR_DATABASE_URL": url,
            "MIGRATOR_KAFKA_SESSION_TIMEOUT_MS": "1000",
            "MIGRATOR_KAFKA_HEARTBEAT_INTERVAL_MS": "300",
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.kafka["bootstrap.servers"],
            "KAFKA_GROUP": f"migrator-accounts-{self._hash[:12]}",
            "KAFKA_SESSION_TIMEOUT_MS": "1000",
            "KAFKA_HEARTBEAT_MS": "300",
            "TOPIC": self._topic,
            "DEFINITION_HASH": self._hash,
        }
        self._running[name] = subprocess.Popen(command, env=environment, stdout=-3)

    def _look(self, conn: Any, log: Log) -> None:
        """Live is what a replay of the log up to its positions makes."""
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '30s'")
            writers.exclude(conn, ["accounts"])
            offsets = self._offsets(conn)
            rows = conn.execute("SELECT * FROM accounts ORDER BY account_id").fetchall()
        # What was just produced may be committed before its producer hears of it.
        self._await(lambda: all(end <= len(log.records[n]) for n, end in offsets.items()))
        assert sorted(rows) == log.replayed(offsets)
        self.told.looks += 1

    def _await_all(self, conn: Any, log: Log) -> None:
        ends = {n: len(records) for n, records in log.records.items()}
        self._await(lambda: self._offsets(conn) == ends)

    def _offsets(self, conn: Any) -> dict[int, int]:
        return dict(
            conn.execute(
                """SELECT partition, next_offset FROM migrator.position
                   JOIN migrator.build USING (build) WHERE state = 'live'"""
            ).fetchall()
        )

    def _reached(self, conn: Any) -> int:
        row = conn.execute("SELECT sum(events) FROM migrator.position").fetchone()
        return int(row[0])

    def _newest(self, conn: Any) -> int:
        return int(conn.execute("SELECT max(entry) FROM migrator.ledger").fetchone()[0])

    def _await(self, reached: Any) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while not reached():
            assert time.monotonic() < deadline, "the projectors do not get on"
            time.sleep(0.005)


class _Aborted(Exception):
    pass


def _abort(*_: object, **__: object) -> None:
    raise _Aborted


def hand_over(
    root: Path, make_settings: Any, brokers: str, topic: str, swaps: int, seed: int
) -> Told:
    """The whole of it, on a database and a topic of four partitions of the caller's."""
    turns = random.Random(seed)
    write(root, ACCOUNTS.format(topic=topic), "accounts.py")
    settings = make_settings(root)
    with Log(brokers, topic, turns) as log:
        for _ in range(2):
            rebuild(settings, ["accounts"])
        over = HandOver(settings, root, topic, turns)
        over.run(log, swaps)
    return over.told
