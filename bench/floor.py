"""The floor of a rebuild: reading the topic raw with two processes, and a binary COPY of the rows.

Nothing that replays a topic into PostgreSQL can be faster than its client library reads the one and
the server takes the other.
"""

from __future__ import annotations

import multiprocessing
import time

import psycopg
from confluent_kafka import Consumer, TopicPartition

COPY_OUT = b"COPY (SELECT * FROM expected) TO STDOUT (FORMAT binary)"


def read_raw(brokers: str, topic: str, partitions: int) -> float:
    """Read every record of the topic with two processes; returns seconds, their start included."""
    began = time.perf_counter()
    halves = [list(range(n, partitions, 2)) for n in range(2)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_drain, args=(brokers, topic, half)) for half in halves]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return time.perf_counter() - began


def _drain(brokers: str, topic: str, partitions: list[int]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "floor",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 1_048_576,
            "fetch.message.max.bytes": 8_388_608,
            "fetch.wait.max.ms": 10,
        }
    )
    left, assigned = 0, []
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
        left += high - low
        assigned.append(TopicPartition(topic, partition, low))
    consumer.assign(assigned)
    while left > 0:
        left -= len(consumer.consume(min(1000, left), 0.2))


def copy_rows(database_url: str) -> float:
    """COPY the expected rows, ready-made in memory, and build the primary key; returns seconds."""
    with psycopg.connect(database_url) as conn:
        with conn.cursor().copy(COPY_OUT) as out:
            ready = b"".join(bytes(chunk) for chunk in out)
        conn.execute("DROP TABLE IF EXISTS floor")
        conn.execute("CREATE TABLE floor (LIKE expected)")
        conn.commit()
        began = time.perf_counter()
        with conn.cursor().copy("COPY floor FROM STDIN (FORMAT binary)") as into:
            for at in range(0, len(ready), 1 << 20):
                into.write(ready[at : at + (1 << 20)])
        conn.commit()
        conn.execute("ALTER TABLE floor ADD PRIMARY KEY (order_id)")
        conn.commit()
        return time.perf_counter() - began
