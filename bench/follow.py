"""make bench-follow: how many events a second projectors apply, and how late an event is seen.

Two processes of `migrator follow` work off a backlog: events a second. Then, at a tenth of that rate, each
event's delay: from the call that produces it to the first look, every few milliseconds, at which its
position, and so its row, is committed. Prints a table and writes bench/results/follow.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from confluent_kafka import Message, Producer

from bench import log, workload
from bench.__main__ import PROJECT, RESULTS, rebuild
from migrator.sandbox import start_sandbox

FIRST = 1000
LOOK_S = 0.005
REACHED = """SELECT coalesce(sum(events), 0)::bigint FROM migrator.position
             JOIN migrator.build USING (build) WHERE state = 'live'"""
OFFSETS = """SELECT partition, next_offset FROM migrator.position
             JOIN migrator.build USING (build) WHERE state = 'live'"""


@contextmanager
def projectors(environment: dict[str, str], count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes of `migrator follow`; they must be well at the end."""
    command = [sys.executable, "-m", "migrator", "--json", "follow"]
    running = [
        subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **environment}, stdout=-3)
        for _ in range(count)
    ]
    try:
        yield running
    finally:
        for each in running:
            each.terminate()
        codes = [each.wait(60) for each in running]
        assert codes == [0] * count, codes


def backlog(brokers: str, database_url: str, events: int) -> None:
    """Write a backlog of `events`, and the rows that all of the log folds into."""
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random"})
    with psycopg.connect(database_url) as conn, conn.cursor() as cursor:
        with cursor.copy("COPY expected FROM STDIN") as copy:
            for number, (key, value, row) in enumerate(workload.events(events, seed=11)):
                while True:
                    try:
                        producer.produce(log.TOPIC, value, key)
                        break
                    except BufferError:
                        producer.poll(0.1)
                if number % 1000 == 0:
                    producer.poll(0)
                if row is not None:
                    copy.write_row(row)
        assert producer.flush(log.FLUSH_S) == 0


def worked_off(conn: psycopg.Connection[Any], events: int) -> float:
    """Events a second, from the first commit to the last."""
    reached = _reached(conn)
    start, target = reached, reached + events
    began = None
    while reached < target:
        time.sleep(LOOK_S)
        reached = _reached(conn)
        if began is None and reached > start:
            began, start = time.perf_counter(), reached
    assert began is not None
    return (target - start) / (time.perf_counter() - began)


def _reached(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(REACHED).fetchone()
    assert row is not None
    return int(row[0])


def delays(conn: psycopg.Connection[Any], brokers: str, per_s: int, seconds: float) -> list[float]:
    """The delay of every event, in seconds, at a steady rate."""
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 1})
    sent: dict[tuple[int, int], float] = {}
    waiting: dict[int, list[tuple[int, float]]] = {n: [] for n in range(log.PARTITIONS)}
    found: list[float] = []

    def delivered(at: float) -> Callable[[Any, Message], None]:
        def note(error: Any, message: Message) -> None:
            assert error is None
            waiting[message.partition() or 0].append((message.offset() or 0, at))

        return note

    count, began = 0, time.perf_counter()
    source = workload.events(round(per_s * seconds), seed=13)
    is_through = False
    while not is_through or len(found) < count:
        due = (time.perf_counter() - began) * per_s
        while not is_through and count < due:
            event = next(source, None)
            if event is None:
                is_through = True
                break
            key, value, _ = event
            producer.produce(log.TOPIC, value, key, on_delivery=delivered(time.perf_counter()))
            count += 1
        producer.poll(LOOK_S)
        offsets = dict(conn.execute(OFFSETS).fetchall())
        now = time.perf_counter()
        for partition, reached in offsets.items():
            held = waiting[partition]
            found += [now - at for offset, at in held if offset < reached]
            waiting[partition] = [each for each in held if each[0] >= reached]
    assert not sent
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-follow ARGS=")
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    with start_sandbox(kind="embedded", say=print) as sandbox:
        brokers, url, environment = (
            sandbox.bootstrap_servers,
            sandbox.database_url,
            {**os.environ, **sandbox.environment()},
        )
        log.produce(brokers, url, FIRST)
        rebuild(environment)
        print(f"producing {asked.events:,} events ...", flush=True)
        backlog(brokers, url, asked.events)
        with psycopg.connect(url, autocommit=True) as conn:
            with projectors(environment, asked.processes):
                per_s = worked_off(conn, asked.events)
            differing = log.differing(url)
            with projectors(environment, asked.processes):
                _started(conn, brokers)
                late = delays(conn, brokers, round(per_s / 10), asked.seconds)
    result = {
        "events": asked.events,
        "processes": asked.processes,
        "events_per_s": per_s,
        "differing_rows": differing,
        "delayed_events": len(late),
        "p50_s": late[len(late) // 2],
        "p99_s": late[len(late) * 99 // 100],
        "longest_s": late[-1],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "follow.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, value in result.items():
        print(f"{name:>16} {value:,.3f}" if isinstance(value, float) else f"{name:>16} {value:,}")
    if differing:
        raise SystemExit("rows differ from what the generator says")


def _started(conn: psycopg.Connection[Any], brokers: str) -> None:
    """Let the projectors have their partitions before anything is measured."""
    del brokers
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'migrator follow%'"
    while conn.execute(query).fetchone() < (2,):
        time.sleep(0.1)
    time.sleep(5)


if __name__ == "__main__":
    main()
