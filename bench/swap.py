"""make bench-swap: what readers and writers notice of swaps, one a second, at two sizes of the tables.

Two projections swap together, forth and back, under four readers, one writer, and a reader that keeps
its transaction open for 5 s now and then. Counts errors and reads that mix two generations; prints the
longest statement of each beside the bar, lock_timeout + 60 ms. Writes bench/results/swap.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections.move import Move
from migrator.projections.swap import Swapped, swap
from migrator.sandbox import start_sandbox
from migrator.settings import Settings, load

RESULTS = Path(__file__).parent / "results"
MARGIN_MS = 60
TABLES = ("orders", "customers")
LONG_S, LONG_EVERY_S = 5, 15

Statement = Callable[[psycopg.Connection[Any], int], set[int]]


def count(conn: psycopg.Connection[Any], size: int) -> set[int]:
    """A hundred rows of one table."""
    first = random.randrange(max(size - 100, 1))
    query = "SELECT generation, count(*) FROM orders WHERE id >= %s AND id < %s GROUP BY 1"
    return {row[0] for row in conn.execute(query, (first, first + 100))}


def look_up(conn: psycopg.Connection[Any], size: int) -> set[int]:
    """One row by its key, by a prepared statement."""
    query = "SELECT generation FROM orders WHERE id = %s"
    key = (random.randrange(size),)
    return {row[0] for row in conn.execute(query, key, prepare=True)}


def both(conn: psycopg.Connection[Any], size: int) -> set[int]:
    """Both tables in one READ COMMITTED transaction."""
    with conn.transaction():
        return look_up(conn, size) | _customer(conn, size)


def both_repeatable(conn: psycopg.Connection[Any], size: int) -> set[int]:
    """Both tables in one REPEATABLE READ transaction."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return look_up(conn, size) | _customer(conn, size)


def write(conn: psycopg.Connection[Any], size: int) -> set[int]:
    """An upsert."""
    query = """INSERT INTO orders AS o (id, generation, n) VALUES (%s, 0, 0)
               ON CONFLICT (id) DO UPDATE SET n = o.n + 1 RETURNING generation"""
    return {row[0] for row in conn.execute(query, (random.randrange(size),))}


def _customer(conn: psycopg.Connection[Any], size: int) -> set[int]:
    query = "SELECT generation FROM customers WHERE id = %s"
    return {row[0] for row in conn.execute(query, (random.randrange(size),))}


def traffic(url: str, name: str, size: int, seconds: float, found: Any) -> None:
    """Run one kind of statement for so long; one process each."""
    statement: Statement = globals()[name]
    took_ms, errors, mixed = [], 0, 0
    limit = time.monotonic() + seconds
    with psycopg.connect(url, autocommit=True) as conn:
        while time.monotonic() < limit:
            began = time.perf_counter()
            try:
                mixed += len(statement(conn, size)) > 1
            except psycopg.Error:
                errors += 1
            took_ms.append((time.perf_counter() - began) * 1000)
            time.sleep(0.002)
    found.put((name, {"statements": len(took_ms), "errors": errors, "mixed": mixed, **of(took_ms)}))


def stay(url: str, seconds: float) -> None:
    """Keep a transaction open on the table for 5 s, again and again."""
    limit = time.monotonic() + seconds - LONG_S
    with psycopg.connect(url, autocommit=True) as conn:
        while time.monotonic() < limit:
            time.sleep(LONG_EVERY_S - LONG_S)
            with conn.transaction():
                conn.execute("SELECT FROM orders LIMIT 1")
                time.sleep(LONG_S)


def of(took_ms: list[float]) -> dict[str, float]:
    return {"median_ms": round(statistics.median(took_ms), 1), "longest_ms": round(max(took_ms), 1)}


@contextmanager
def running(url: str, size: int, seconds: float) -> Iterator[dict[str, Any]]:
    """The traffic, for the block and as long as it takes; filled in when it has ended."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    names = [each.__name__ for each in (count, look_up, both, both_repeatable, write)]
    processes = [
        context.Process(target=traffic, args=(url, name, size, seconds, queue)) for name in names
    ]
    processes.append(context.Process(target=stay, args=(url, seconds)))
    for each in processes:
        each.start()
    found: dict[str, Any] = {}
    yield found
    found.update(queue.get(timeout=seconds + 60) for _ in names)
    for each in processes:
        each.join()


def prepare(url: str, size: int) -> None:
    """Two builds of each table, one live and one beside it, with an index and a view."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS migrator CASCADE")
        for number in range(1, 5):
            conn.execute(f"DROP SCHEMA IF EXISTS migrator_build_{number} CASCADE")
        conn.execute("DROP TABLE IF EXISTS orders, customers CASCADE")
        ledger.ensure(conn)
        for number, table in enumerate(TABLES * 2, 1):
            generation = 1 + (number > len(TABLES))
            state = "live" if generation == 1 else "verified"
            schema = "public" if generation == 1 else f"migrator_build_{number}"
            conn.execute(f"CREATE SCHEMA migrator_build_{number}")
            conn.execute(
                f"""CREATE TABLE {schema}.{table} (id int PRIMARY KEY, generation int, n bigint);
                    INSERT INTO {schema}.{table} SELECT n, {generation}, 0
                      FROM generate_series(0, {size - 1}) AS n;
                    CREATE INDEX ON {schema}.{table} (n)"""
            )
            conn.execute(f"VACUUM (FREEZE, ANALYZE) {schema}.{table}")
            conn.execute(
                """INSERT INTO migrator.build
                     (projection, state, definition_hash, target_schema, table_name)
                   VALUES (%s, %s, 'h', 'public', %s)""",
                (table, state, table),
            )
        conn.execute("CREATE VIEW many AS SELECT * FROM orders WHERE n > 5")


def measure(settings: Settings, url: str, size: int, seconds: float) -> dict[str, Any]:
    prepare(url, size)
    swaps: list[Swapped] = []
    with running(url, size, seconds) as found:
        time.sleep(1.5)  # until all of them are there
        limit = time.monotonic() + seconds - 4
        with connect(settings, "bench", autocommit=True) as conn:
            while time.monotonic() < limit:
                again = time.monotonic() + 1
                swaps.append(swap(conn, settings, _moves(conn), run=uuid4()))
                time.sleep(max(again - time.monotonic(), 0))
    return {
        "rows": size,
        "swaps": len(swaps),
        "attempts_most": max(each.attempts for each in swaps),
        "held": of([each.held_ms for each in swaps]),
        "stall": of([each.stall_ms for each in swaps]),
        "traffic": found,
        "bar_ms": settings.projections.swap_lock_timeout_ms + MARGIN_MS,
    }


def _moves(conn: Any) -> list[Move]:
    """The way to the other build of each table, as if it had just been verified."""
    conn.execute("UPDATE migrator.build SET state = 'verified' WHERE state = 'archived'")
    moves = []
    for table in TABLES:
        (live,) = builds.find(conn, table, ["live"])
        (other,) = builds.find(conn, table, ["verified"])
        moves.append(Move(other, live))
    return moves


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-swap ARGS=", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 2_000_000])
    asked = parser.parse_args()
    with start_sandbox(kind="embedded", kafka=False, say=print) as sandbox:
        url = sandbox.database_url
        settings = load(overrides={"database": {"url": url}})
        results = [measure(settings, url, size, asked.seconds) for size in asked.rows]
    for each in results:
        print(table(each))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "swap.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(not all(is_sound(each) for each in results))


def is_sound(result: dict[str, Any]) -> bool:
    return all(
        not each["errors"] and not each["mixed"] and each["longest_ms"] <= result["bar_ms"]
        for each in result["traffic"].values()
    )


def table(result: dict[str, Any]) -> str:
    lines = [
        (
            f"{result['rows']:,} rows: {result['swaps']} swaps, at most {result['attempts_most']} attempts; "
            f"locked for {result['held']['median_ms']} ms, at most {result['held']['longest_ms']} ms"
        )
    ]
    for name, each in sorted(result["traffic"].items()):
        lines.append(
            f"  {name:<16} {each['statements']:>7,} statements, {each['errors']} errors, "
            f"{each['mixed']} mixed, median {each['median_ms']} ms, longest {each['longest_ms']} ms "
            f"(bar {result['bar_ms']} ms)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
