"""make bench-up: `migrator up` against plain alembic, in one run on one machine.

Prints a table and writes bench/results/up.json. The bars are a ratio for the chain of revisions, and
seconds for a run that finds nothing pending.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from migrator.sandbox import start_sandbox

RESULTS = Path(__file__).parent / "results"

REVISION = '''"""Create table {table}"""
from alembic import op

revision = "{revision}"
down_revision = {revises!r}
phase = "expand"


def upgrade() -> None:
    op.execute("CREATE TABLE {table} (id bigint)")
'''

INI = """[alembic]
script_location = migrations
sqlalchemy.url = {url}
"""

# What `alembic init` writes, without its logging: one transaction for the whole run.
ENV = """from alembic import context
from sqlalchemy import engine_from_config, pool

config = context.config
connectable = engine_from_config(
    config.get_section(config.config_ini_section), prefix="sqlalchemy.", poolclass=pool.NullPool
)
with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=None{options})
    with context.begin_transaction():
        context.run_migrations()
"""


def write(root: Path, count: int, url: str, options: str = "") -> None:
    """A project that plain alembic and migrator both take."""
    versions, scripts = root / "migrations/versions", root / "migrations/rollback"
    versions.mkdir(parents=True)
    scripts.mkdir()
    (root / "alembic.ini").write_text(INI.format(url=url.replace("://", "+psycopg://")))
    (root / "migrations/env.py").write_text(ENV.format(options=options))
    revises = None
    for number in range(1, count + 1):
        name, table = f"{number:04}", f"t{number:04}"
        text = REVISION.format(revision=name, revises=revises, table=table)
        (versions / f"{name}_create.py").write_text(text)
        (scripts / f"{name}.sql").write_text(f"DROP TABLE {table};\n")
        revises = name


def run(root: Path, url: str, *command: str) -> tuple[float, float]:
    """Run a command as a user would; returns wall seconds, and its own CPU seconds (no server's)."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    before, began = _cpu_s(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        env={**environment, "MIGRATOR_DATABASE_URL": url},
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return took, _cpu_s() - before


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(server: str, scratch: Path, count: int) -> dict[str, float]:
    """Each command once, on a database of its own."""
    found = {}

    def keep(name: str, took: tuple[float, float]) -> None:
        found[name], found[f"{name}_cpu"] = took

    for name in ("alembic", "alembic_per_revision", "migrator"):
        database = f"bench_{name}"
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")  # type: ignore[arg-type]
            conn.execute(f"CREATE DATABASE {database}")  # type: ignore[arg-type]
            conn.execute("CHECKPOINT")
        url = server.rpartition("/")[0] + f"/{database}"
        root = scratch / name
        if not root.exists():
            per_revision = ", transaction_per_migration=True"
            write(root, count, url, per_revision if name == "alembic_per_revision" else "")
        if name == "migrator":
            keep(name, run(root, url, "migrator", "up"))
            keep("nothing_pending", run(root, url, "migrator", "up"))
        else:
            keep(name, run(root, url, "alembic", "upgrade", "head"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-up ARGS=")
    parser.add_argument("--revisions", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with (
        start_sandbox(kind="embedded", kafka=False, say=print) as sandbox,
        tempfile.TemporaryDirectory(prefix="migrator-bench-") as scratch,
    ):
        runs = []
        for number in range(asked.runs + 1):
            found = measure(sandbox.database_url, Path(scratch), asked.revisions)
            if number:  # the first run compiles the bytecode and warms the page cache
                runs.append(found)
            print(f"run {number}: " + ", ".join(f"{k} {v:.2f} s" for k, v in found.items()))
    result = summary(asked.revisions, runs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "up.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def summary(count: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        "revisions": count,
        "runs": runs,
        "median": median,
        "times_alembic": median["migrator"] / median["alembic"],
        "times_alembic_cpu": median["migrator_cpu"] / median["alembic_cpu"],
        "times_alembic_per_revision": median["migrator"] / median["alembic_per_revision"],
    }


def table(result: dict[str, Any]) -> str:
    median = result["median"]
    rows = [
        ("alembic upgrade head", f"{median['alembic']:.2f} s"),
        ("the same, a transaction each", f"{median['alembic_per_revision']:.2f} s"),
        (f"migrator up, {result['revisions']} revisions", f"{median['migrator']:.2f} s"),
        ("times alembic", f"{result['times_alembic']:.2f}"),
        ("times alembic, CPU of the command", f"{result['times_alembic_cpu']:.2f}"),
        ("times alembic, a transaction each", f"{result['times_alembic_per_revision']:.2f}"),
        ("migrator up, nothing pending", f"{median['nothing_pending']:.2f} s"),
    ]
    return "\n".join(f"{name:36}{value:>12}" for name, value in rows)


if __name__ == "__main__":
    main()
