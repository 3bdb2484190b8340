"""make bench-locks: how long a reader stalls while `migrator up` waits for a table that is held.

Prints the longest read beside the bar, and writes bench/results/locks.json. The bar is lock_timeout + 100 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from migrator.migrations import up
from migrator.sandbox import start_sandbox
from migrator.settings import load

RESULTS = Path(__file__).parent / "results"
MARGIN_MS = 100
REVISION = '''"""Add a column"""
from alembic import op

revision = "0001"
down_revision = None
phase = "expand"


def upgrade() -> None:
    op.execute("ALTER TABLE held ADD COLUMN b int")
'''


def write(root: Path) -> None:
    for name in ("versions", "rollback"):
        (root / "migrations" / name).mkdir(parents=True)
    (root / "migrations/versions/0001_x.py").write_text(REVISION)
    (root / "migrations/rollback/0001.sql").write_text("ALTER TABLE held DROP COLUMN b;")


class Reader(threading.Thread):
    """Reads the table again and again; notes how long each read took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.ended, self.took_ms = url, threading.Event(), []

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self.ended.is_set():
                started = time.perf_counter()
                conn.execute("SELECT FROM held")
                self.took_ms.append((time.perf_counter() - started) * 1000)
                time.sleep(0.001)


def measure(url: str, root: Path, *, held_s: float, long_transaction_s: float) -> dict[str, Any]:
    database = {"url": url, "long_transaction_s": long_transaction_s}
    settings = load(overrides={"database": database, "root": root})
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS migrator CASCADE")
        conn.execute("DROP TABLE IF EXISTS held, alembic_version; CREATE TABLE held (a int)")
    reader = Reader(url)
    with psycopg.connect(url) as blocker:
        blocker.execute("SELECT FROM held")
        reader.start()
        release = threading.Timer(held_s, blocker.rollback)
        release.start()
        done = up.up(settings).applied[0]
        release.join()
    reader.ended.set()
    reader.join()
    bar = settings.database.lock_timeout_ms + MARGIN_MS
    return {
        "held_s": held_s,
        "retries": done.retries,
        "lock_wait_ms": done.lock_wait_ms,
        "reads": len(reader.took_ms),
        "median_ms": round(statistics.median(reader.took_ms), 2),
        "longest_ms": round(max(reader.took_ms), 1),
        "bar_ms": bar,
        "ok": max(reader.took_ms) <= bar,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-s", type=float, default=8, help="how long the table is held")
    args = parser.parse_args()
    with start_sandbox() as sandbox, tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        rows = {
            "asks and retries": measure(
                sandbox.database_url, Path(folder), held_s=args.held_s, long_transaction_s=3600
            ),
            "holds off after 1 s": measure(
                sandbox.database_url, Path(folder), held_s=args.held_s, long_transaction_s=1
            ),
        }
    for name, row in rows.items():
        print(
            f"{name:<20} {row['reads']:>6,} reads, median {row['median_ms']} ms, longest "
            f"{row['longest_ms']} ms (bar {row['bar_ms']} ms), {row['retries']} retries: "
            f"{'ok' if row['ok'] else 'TOO LONG'}"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "locks.json").write_text(json.dumps(rows, indent=2))
    sys.exit(not all(row["ok"] for row in rows.values()))


if __name__ == "__main__":
    main()
