"""make bench-memory: what rebuilds of logs of different lengths need at one and the same budget.

All processes of the command are looked at every 50 ms: the parent, the process that workers are forked
from, and the workers. Memory that they share counts once, where the system tells (Linux: PSS). The
seconds are of another run of the same, before.
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
from itertools import count
from typing import Any

import psutil

from bench import log
from bench.__main__ import PROJECT, RESULTS, rebuild
from migrator.sandbox import start_sandbox

EVERY_S = 0.05
LOOKS_A_SEARCH = 10
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
        found: list[psutil.Process] = []
        for number in count():
            if self._ended.wait(EVERY_S):
                return
            with suppress(psutil.NoSuchProcess):
                if number % LOOKS_A_SEARCH == 0:
                    found = [self._root, *self._root.children(recursive=True)]
                self._look(found)

    def _look(self, found: list[psutil.Process]) -> None:
        sizes = []
        for process in found:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                sizes.append(_mb(process))
        self.processes = max(self.processes, len(sizes))
        if sum(sizes) > self.peak_mb:
            self.peak_mb, self.at_peak = sum(sizes), [round(size, 1) for size in sizes]


def _mb(process: psutil.Process) -> float:
    found = process.memory_full_info()
    return getattr(found, "pss", found.rss) / MB


def measure(events: int, memory_mb: int) -> dict[str, Any]:
    """Rebuild a log of `events` events on servers of its own."""
    with start_sandbox(kind="embedded", say=print) as sandbox:
        print(f"producing {events:,} events ...", flush=True)
        began = time.perf_counter()
        log.produce(sandbox.bootstrap_servers, sandbox.database_url, events)
        print(f"produced in {time.perf_counter() - began:.0f} s; rebuilding ...", flush=True)
        budget = {"MIGRATOR_PROJECTIONS_MEMORY_MB": str(memory_mb)}
        environment = {**sandbox.environment(), **budget}
        # To look at its memory slows a process: the seconds are of a run that nobody looks at.
        wall, _ = rebuild(environment)
        found = follow({**os.environ, **environment})
        return {
            "events": events,
            "wall": wall,
            **found,
            "events_per_s": events / wall,
            "times_the_budget": found["peak_mb"] / memory_mb,
            "differing_rows": log.differing(sandbox.database_url),
        }


def follow(environment: dict[str, str]) -> dict[str, Any]:
    """Run the whole command as a user would, and follow it to its end."""
    command = [sys.executable, "-m", "migrator", "--json", "rebuild-projections", "--all"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        sampler = Sampler(process.pid)
        code = process.wait()
        sampler.stop()
        said.seek(0)

        said.seek(0)
        if code:
            raise SystemExit(said.read().decode())
    return {
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
    for events in asked.events:
        runs.append(measure(events, asked.memory_mb))
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
