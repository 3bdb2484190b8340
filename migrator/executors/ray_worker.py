"""The far side of the Ray executor: run one task, report in batches, end when the parent is gone.

No program of Ray's but this worker sees what a parcel holds: it is an argument small enough to travel
from process to process, and neither Ray's state, nor its logs, nor its dashboard show arguments.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrator.errors import MigratorError
from migrator.executors import places
from migrator.executors.executor import Function, failure

REPORT_EVERY_S = 0.5
PARENT_SILENT_S = 20.0
LIBPQ = "PG"


@dataclass(frozen=True, repr=False)
class Parcel:
    """What one worker is given, passwords among it. `folders` are those of the parent, by our names."""

    function: Function[Any]
    task: Any
    environment: Mapping[str, str]
    folders: Mapping[Path, str]

    def packed(self) -> bytes:
        return zlib.compress(pickle.dumps(self))


def libpq_environment() -> dict[str, str]:
    """What libpq fills a URL's gaps with; a worker must connect as its parent does."""
    return {name: value for name, value in os.environ.items() if name.startswith(LIBPQ)}


class Inbox:
    """An actor beside the parent: what the workers report, until the parent takes it."""

    def __init__(self) -> None:
        self._reports: list[bytes] = []
        self._began: set[int] = set()
        self._asked = time.monotonic()

    def put(self, worker: int, reports: bytes | None) -> bool:
        """Take a worker's reports; False where the parent has not asked for too long."""
        self._began.add(worker)
        if reports is not None:
            self._reports.append(reports)
        return time.monotonic() - self._asked < PARENT_SILENT_S

    def take(self) -> tuple[list[bytes], set[int]]:
        """Give every report once, and the numbers of all workers that have begun."""
        self._asked = time.monotonic()
        reports, self._reports = self._reports, []
        return reports, self._began


def work(parcel: bytes, inbox: Any, number: int) -> MigratorError | None:
    """Do the parcel's task, and return what went wrong; the process is this task's own."""
    courier = _Courier(inbox, number)
    courier.start()

    def opened(packed: bytes, report: Any) -> None:
        inside: Parcel = pickle.loads(zlib.decompress(packed))  # noqa: S301 - from our parent
        _become(inside)
        inside.function(inside.task, report)

    error = failure(opened, parcel, courier.report)
    courier.finish()
    return error


def _become(parcel: Parcel) -> None:
    for name in libpq_environment():
        del os.environ[name]
    os.environ.update(parcel.environment)
    places.moved({theirs: Path.cwd() / ours for theirs, ours in parcel.folders.items()})


class _Courier(threading.Thread):
    """Carries reports to the parent twice a second, and ends the process where there is none."""

    def __init__(self, inbox: Any, number: int) -> None:
        super().__init__(name="reports", daemon=True)
        self._inbox = inbox
        self._number = number
        self._reports: list[Any] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def report(self, said: Any) -> None:
        with self._lock:
            self._reports.append(said)

    def finish(self) -> None:
        """Deliver what is left."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        self._deliver()
        while not self._ended.wait(REPORT_EVERY_S):
            self._deliver()
        self._deliver()

    def _deliver(self) -> None:
        import ray

        with self._lock:
            reports, self._reports = self._reports, []
        packed = pickle.dumps(reports) if reports else None
        try:
            heard = ray.get(self._inbox.put.remote(self._number, packed), timeout=PARENT_SILENT_S)
        except Exception:  # noqa: BLE001 - whatever Ray says of a parent that is not there
            heard = False
        if not heard:
            # No orphan goes on writing: what is not committed is the next run's.
            os._exit(1)
