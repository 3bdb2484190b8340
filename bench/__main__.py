"""make bench: `migrator rebuild-projections` against the floor, in one run on one machine.

Prints a table and writes bench/results/rebuild.json. The bar is a ratio; seconds are shown for scale.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import floor, log
from migrator.sandbox import start_sandbox

PROJECT = Path(__file__).parent / "project"
RESULTS = Path(__file__).parent / "results"


def rebuild(environment: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Run the whole command as a user would; returns wall seconds and what it reported."""
    command = [sys.executable, "-m", "migrator", "--json", "rebuild-projections", "--all"]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return took, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with start_sandbox(kind="embedded", say=print) as sandbox:
        print(f"producing {asked.events:,} events ...", flush=True)
        log.produce(sandbox.bootstrap_servers, sandbox.database_url, asked.events)
        runs = []
        for number in range(asked.runs + 1):
            read = floor.read_raw(sandbox.bootstrap_servers, log.TOPIC, log.PARTITIONS)
            copy = floor.copy_rows(sandbox.database_url)
            took, report = rebuild(sandbox.environment())
            if number:  # the first run warms the page cache
                runs.append({"read": read, "copy": copy, "rebuild": took, **report["seconds"]})
            print(f"run {number}: floor {read + copy:.2f} s, rebuild {took:.2f} s", flush=True)
        wrong = log.differing(sandbox.database_url)
    result = summary(asked.events, runs, wrong)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rebuild.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    if wrong:
        raise SystemExit(f"{wrong} rows differ from what the generator says")


def summary(count: int, runs: list[dict[str, float]], wrong: int) -> dict[str, Any]:
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    at_floor = median["read"] + median["copy"]
    return {
        "events": count,
        "runs": runs,
        "median": median,
        "floor_s": at_floor,
        "times_the_floor": median["rebuild"] / at_floor,
        "events_per_s": count / median["rebuild"],
        "differing_rows": wrong,
    }


def table(result: dict[str, Any]) -> str:
    median = result["median"]
    rows = [
        ("raw read, 2 processes", f"{median['read']:.2f} s"),
        ("binary COPY and primary key", f"{median['copy']:.2f} s"),
        ("floor", f"{result['floor_s']:.2f} s"),
        ("migrator rebuild-projections", f"{median['rebuild']:.2f} s"),
        ("times the floor", f"{result['times_the_floor']:.2f}"),
        ("events per second", f"{result['events_per_s']:,.0f}"),
        ("rows that differ", str(result["differing_rows"])),
    ]
    return "\n".join(f"{name:32}{value:>12}" for name, value in rows)


if __name__ == "__main__":
    main()
