"""make bench-peers: `migrator rebuild-projections` and other engines at the same job, in one run.

Each reads the same topic of the same broker and fills a table of the same PostgreSQL; what each built
is compared, row by row, with what the generator says. Whole commands are timed, from start to end.
Prints a table and writes bench/results/peers.json. The bar is how many times migrator's time a peer takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import log
from bench.__main__ import RESULTS, rebuild
from bench.peers import flink, spark
from bench.peers.model import Peer, run
from migrator.sandbox import Sandbox, start_sandbox

OURS = "migrator rebuild-projections"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-peers ARGS=")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--peers", nargs="+", default=["spark", "flink"], choices=["spark", "flink"]
    )
    parser.add_argument("--peer-memory", default="6g", help="of a peer's Java")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="migrator-bench-") as scratch,
        start_sandbox(kind="embedded", say=print) as sandbox,
    ):
        peers = chosen(asked, sandbox, Path(scratch))
        print(f"producing {asked.events:,} events ...", flush=True)
        log.produce(sandbox.bootstrap_servers, sandbox.database_url, asked.events)
        rebuild(sandbox.environment())  # warms the page cache, which all find warm then
        runs, wrong = measure(sandbox, peers, asked.runs)
    result = summary(asked.events, runs, wrong)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    if any(wrong.values()):
        raise SystemExit("rows differ from what the generator says")


def chosen(asked: argparse.Namespace, sandbox: Sandbox, scratch: Path) -> list[Peer]:
    servers = (sandbox.bootstrap_servers, sandbox.database_url, asked.peer_memory)
    makers = {"spark": lambda: spark.peer(*servers), "flink": lambda: flink.peer(*servers, scratch)}
    return [makers[name]() for name in asked.peers]


def measure(
    sandbox: Sandbox, peers: list[Peer], count: int
) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Run all in turn, `count` times; returns seconds of each run, and rows that ever differed."""
    runs: list[dict[str, float]] = []
    wrong = dict.fromkeys([OURS, *(peer.name for peer in peers)], 0)
    for number in range(1, count + 1):
        took = {OURS: rebuild(sandbox.environment())[0]}
        wrong[OURS] += log.differing(sandbox.database_url)
        for peer in peers:
            took[peer.name] = run(peer, sandbox.database_url)
            wrong[peer.name] += log.differing(sandbox.database_url, peer.table)
        runs.append(took)
        print(f"run {number}: " + ", ".join(f"{k} {v:.2f} s" for k, v in took.items()), flush=True)
    return runs, wrong


def summary(count: int, runs: list[dict[str, float]], wrong: dict[str, int]) -> dict[str, Any]:
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        "events": count,
        "runs": runs,
        "measured": {
            name: {
                "wall_s": seconds,
                "events_per_s": count / seconds,
                "times_migrator": seconds / median[OURS],
                "differing_rows": wrong[name],
            }
            for name, seconds in median.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    head = f"{'':32}{'seconds':>10}{'events/s':>12}{'times':>8}{'differing':>11}"
    rows = [
        f"{name:32}{found['wall_s']:>10.2f}{found['events_per_s']:>12,.0f}"
        f"{found['times_migrator']:>8.1f}{found['differing_rows']:>11}"
        for name, found in result["measured"].items()
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
