"""Write the workload's log to a topic, and the rows that it must fold into to the table `expected`.

Two processes write half of it each, in bounded memory whatever its length. Which half is first in a
partition is chance; the rows are not: an order is of one half.
"""

from __future__ import annotations

import multiprocessing

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench import workload

TOPIC = "orders"
PARTITIONS = 4
SEEDS = (7, 8)
FLUSH_S = 300
EXPECTED = """
    CREATE TABLE expected (order_id text, customer_id text, status text, currency text,
        total_cents bigint, lines int, placed_at timestamptz, paid_at timestamptz,
        shipped_at timestamptz, version int)"""
DIFFERING = """
    SELECT count(*) FROM expected e FULL JOIN {} o USING (order_id)
    WHERE (e.customer_id, e.status, e.currency, e.total_cents, e.lines, e.placed_at,
           e.paid_at, e.shipped_at, e.version)
          IS DISTINCT FROM
          (o.customer_id, o.status, o.currency, o.total_cents, o.lines, o.placed_at,
           o.paid_at, o.shipped_at, o.version)"""


def produce(brokers: str, database_url: str, count: int) -> None:
    """Write `count` events, a multiple of ten, and the table `expected`."""
    admin = AdminClient({"bootstrap.servers": brokers})
    topic = NewTopic(TOPIC, PARTITIONS, 1, config={"retention.ms": "-1"})
    admin.create_topics([topic])[TOPIC].result(30)
    with psycopg.connect(database_url) as conn:
        conn.execute(EXPECTED)
    half = count // len(SEEDS)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write, args=(brokers, database_url, half, seed)) for seed in SEEDS
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0


def _write(brokers: str, database_url: str, count: int, seed: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "linger.ms": 20,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 200_000,
        }
    )
    with psycopg.connect(database_url) as conn, conn.cursor() as cursor:
        with cursor.copy("COPY expected FROM STDIN") as copy:
            for number, (key, value, row) in enumerate(workload.events(count, seed=seed)):
                while True:
                    try:
                        producer.produce(TOPIC, value, key)
                        break
                    except BufferError:
                        producer.poll(0.1)
                if number % 5000 == 0:
                    producer.poll(0)
                if row is not None:
                    copy.write_row(row)
        assert producer.flush(FLUSH_S) == 0


def differing(database_url: str, table: str = "orders") -> int:
    """How many rows differ between what was built and what the generator says."""
    with psycopg.connect(database_url) as conn:
        found = psycopg.sql.SQL(DIFFERING).format(psycopg.sql.Identifier(table))
        row = conn.execute(found).fetchone()
    assert row is not None
    return int(row[0])
