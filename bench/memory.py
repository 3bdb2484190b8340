"""make bench-memory: what rebuilds of logs of different lengths need at one and the same budget.

All processes of the command are looked at every 50 ms: the parent, the process that workers are forked
from, and the workers. Memory that they share counts once, where the system tells (Linux: PSS).
Prints a table and writes bench/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

import psutil

from bench import log
from bench.__main__ import PROJECT, RESULTS
from migrator.sandbox import start_sandbox

EVERY_S = 0.05
MB = 1_000_000
BAR = 1.25


class Sampler:
    """Follows the memory of a process and of all that come from it, from start to stop."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self.at_peak: list[float] = []
        self.processes = 0
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            with suppress(psutil.NoSuchProcess):
                self._look()

    def _look(self) -> None:
        sizes = []
        for process in (self._root, *self._root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                sizes.append(_mb(process))
        self.processes = max(self.processes, len(sizes))
        if sum(sizes) > self.peak_mb:
            self.peak_mb, self.at_peak = sum(sizes), [round(size, 1) for size in sizes]


def _mb(process: psutil.Process) -> float:
    found = process.memory_full_info()
    return getattr(found, "pss", found.rss) / MB


def measure(count: int, memory_mb: int) -> dict[str, Any]:
    """Rebuild a log of `count` events on servers of its own."""
    with start_sandbox(kind="embedded", say=print) as sandbox:
        print(f"producing {count:,} events ...", flush=True)
        began = time.perf_counter()
        log.produce(sandbox.bootstrap_servers, sandbox.database_url, count)
        print(f"produced in {time.perf_counter() - began:.0f} s; rebuilding ...", flush=True)
        environment = {
            **os.environ,
            **sandbox.environment(),
            "MIGRATOR_PROJECTIONS_MEMORY_MB": str(memory_mb),
        }
        found = rebuild(environment)
        return {
            "events": count,
            **found,
            "events_per_s": count / found["wall"],
            "times_the_budget": found["peak_mb"] / memory_mb,
            "differing_rows": log.differing(sandbox.database_url),
        }


def rebuild(environment: dict[str, str]) -> dict[str, Any]:
    """Run the whole command as a user would, and follow it."""
    command = [sys.executable, "-m", "migrator", "--json", "rebuild-projections", "--all"]
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        sampler = Sampler(process.pid)
        code = process.wait()
        took = time.perf_counter() - began
        sampler.stop()
        said.seek(0)

        said.seek(0)
        if code:
            raise SystemExit(said.read().decode())
    return {
        "wall": took,
        "peak_mb": sampler.peak_mb,
        "at_peak_mb": sampler.at_peak,
        "processes": sampler.processes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-memory ARGS=")
    sizes = [200_000, 2_000_000, 20_000_000]
    parser.add_argument("--events", type=int, nargs="+", default=sizes)
    parser.add_argument("--memory-mb", type=int, default=512)
    asked = parser.parse_args()
    runs = []
    for count in asked.events:
        runs.append(measure(count, asked.memory_mb))
        print(table(asked.memory_mb, runs[-1:]), flush=True)
    result = {"memory_mb": asked.memory_mb, "runs": runs}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(asked.memory_mb, runs))
    if any(run["differing_rows"] for run in runs):
        raise SystemExit("rows differ from what the generator says")


def table(memory_mb: int, runs: list[dict[str, Any]]) -> str:
    head = (
        f"{'events':>12}{'seconds':>10}{'events/s':>10}{'peak MB':>10}{'times':>8}{'differing':>11}"
    )
    rows = [
        f"{run['events']:>12,}{run['wall']:>10.2f}{run['events_per_s']:>10,.0f}"
        f"{run['peak_mb']:>10.0f}{run['times_the_budget']:>8.2f}{run['differing_rows']:>11}"
        for run in runs
    ]
    return "\n".join([f"memory_mb = {memory_mb}; at most {BAR} times it", head, *rows])


if __name__ == "__main__":
    main()
