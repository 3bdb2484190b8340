"""Run one function over several tasks on a Ray cluster, each in a process of its own.

A worker that is lost, with its node or alone, is tried again with what `renew` says is left. Nothing
here knows what the function does.
"""

from __future__ import annotations

import pickle
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import migrator
from migrator.errors import (
    Busy,
    CannotConnect,
    MigratorError,
    Overtaken,
    SettingsError,
    UsageError,
    WorkerLost,
)
from migrator.executors import ray_worker
from migrator.executors.executor import Function, Renew, Report, Task
from migrator.logs import logger
from migrator.settings import Ray

TAKE_EVERY_S = 0.2
GRACE_S = 5.0
PROBE_S = 5.0
WAIT_UNTOLD_S = 10.0
AGAIN = "run the same command again: it goes on from what is committed"


class RayExecutor:
    """Runs tasks on a cluster, to which `folder` and what it imports are sent.

    `memory_bytes` is for all workers together; each reserves its share.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, settings: Ray, *, folder: Path, memory_bytes: int) -> None:
        self._ray = _ray()
        self._settings = settings
        self._folder = folder
        self._memory_bytes = memory_bytes

    def run(
        self,
        function: Function[Task],
        tasks: Sequence[Task],
        on_report: Report,
        renew: Renew[Task],
    ) -> None:
        """As `Executor.run`, on the cluster.

        Raises:
            MigratorError: the first error of any worker, or that one was lost once too often.
            CannotConnect: no cluster answers.
            Busy: the cluster had no room for any worker for `wait_s`.
            UsageError: the workers cannot be set up: a package is not there, or of another version.
        """
        if not tasks:
            return
        options = {
            "num_cpus": self._settings.cpus_per_worker,
            "memory": self._reserved(len(tasks)),
            "max_calls": 1,
            "max_retries": 0,
            "scheduling_strategy": "SPREAD",
        }
        # Ray prints what it has to say of a node on stdout, which is for the command's result.
        with redirect_stdout(sys.stderr), _connected(self._ray, self._settings, self._folder):
            run = _Run(self._ray, self._settings, function, on_report, renew, options)
            try:
                run.finish(tasks, {self._folder: self._folder.resolve().name})
            finally:
                run.end()

    def _reserved(self, tasks: int) -> int:
        own = self._settings.memory_mb_per_worker
        return self._memory_bytes // tasks if own is None else own * 1_000_000


def _ray() -> Any:
    try:
        import ray
    except ImportError as exc:
        raise UsageError(
            "the executor ray is not installed",
            expected="the package ray, of the version that the cluster runs",
            next_step="pip install 'migrator[ray]', or --executor local",
        ) from exc
    return ray


@contextmanager
def _connected(ray: Any, settings: Ray, folder: Path) -> Iterator[None]:
    """A connection to the cluster, with migrator and the folder on every worker's path."""
    address = settings.address or "auto"
    _probe(address)
    modules = [str(Path(migrator.__path__[0])), *settings.runtime_env.get("py_modules", [])]
    with tempfile.TemporaryDirectory(prefix="migrator-") as staged:
        _stage(folder.resolve(), settings.include, Path(staged))
        environment = {**settings.runtime_env, "py_modules": modules, "working_dir": staged}
        try:
            ray.init(
                address=address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except ConnectionError as exc:
            raise _unreachable(address, exc) from exc
        except (RuntimeError, ValueError, ray.exceptions.RayError) as exc:
            raise UsageError(
                f"Ray does not let us in at {address}: {_first_line(exc)}",
                expected="the cluster's own versions of Ray and Python, and a valid [ray] runtime_env",
            ) from exc
        try:
            yield
        except ray.exceptions.RayError as exc:
            raise WorkerLost(
                f"the Ray cluster was lost: {_first_line(exc)}", next_step=AGAIN
            ) from exc
        finally:
            ray.shutdown()


def _probe(address: str) -> None:
    """Ask whether anything listens there: Ray itself would wait for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=PROBE_S).close()
        except OSError as exc:
            raise _unreachable(address, exc) from exc


def _unreachable(address: str, exc: Exception) -> CannotConnect:
    return CannotConnect(
        f"no Ray cluster answers at {address}: {_first_line(exc)}",
        expected="the address of a running cluster in [ray] address or RAY_ADDRESS",
        next_step="ray status says whether it runs; --executor local needs none",
        address=address,
    )


def _stage(folder: Path, include: Sequence[Path], staged: Path) -> None:
    """Copy what the workers import, and nothing else: a project's folder may hold secrets."""
    without = shutil.ignore_patterns("__pycache__", ".*")
    root = folder.parent
    for source in (folder, *((root / each).resolve() for each in include)):
        if not source.is_relative_to(root) or source == root:
            raise SettingsError(
                f"[ray] include names {source}, which lies outside of what is imported",
                expected=f"files and folders in {root}",
            )
        to = staged / source.relative_to(root)
        if source.is_dir():
            shutil.copytree(source, to, ignore=without)
        elif source.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to)
        else:
            raise SettingsError(
                f"[ray] include names {source}: there is no such file or folder",
                expected=f"files and folders in {root}",
            )


@dataclass(frozen=True)
class _Running(Generic[Task]):
    """A task on the cluster; `tries` is how often it was tried before without getting on."""

    number: int
    task: Task
    tries: int


class _Run(Generic[Task]):
    """One run: which tasks are on the cluster, and what becomes of each."""

    def __init__(
        self,
        ray: Any,
        settings: Ray,
        function: Function[Task],
        on_report: Report,
        renew: Renew[Task],
        options: Mapping[str, Any],
    ) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray = ray
        self._settings = settings
        self._function = function
        self._on_report = on_report
        self._renew = renew
        self._options = options
        self._work = ray.remote(**options)(ray_worker.work)
        # Beside the parent: no node's loss takes the reports of the others with it.
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        inbox = ray.remote(num_cpus=0, scheduling_strategy=beside)(ray_worker.Inbox)
        self._inbox = inbox.remote()
        self._running: dict[Any, _Running[Task]] = {}
        self._numbers = 0
        self._idle_since = time.monotonic()
        self._is_wait_told = False
        self._folders: Mapping[Path, str] = {}

    def finish(self, tasks: Sequence[Task], folders: Mapping[Path, str]) -> None:
        """Run all tasks to their end."""
        self._folders = folders
        for task in tasks:
            self._submit(task, 0)
        while self._running:
            ended, _ = self._ray.wait(list(self._running), timeout=TAKE_EVERY_S)
            began = self._hear()
            for reference in ended:
                self._ended(reference)
            self._watch(began)
        self._hear()

    def end(self) -> None:
        """Stop what still runs, and wait a moment for it."""
        left = list(self._running)
        for reference in left:
            self._ray.cancel(reference, force=True)
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=GRACE_S)
        self._ray.kill(self._inbox)

    def _submit(self, task: Task, tries: int) -> None:
        self._numbers += 1
        parcel = ray_worker.Parcel(
            self._function, task, ray_worker.libpq_environment(), self._folders
        )
        reference = self._work.options(name=f"migrator worker {self._numbers}").remote(
            parcel.packed(), self._inbox, self._numbers
        )
        self._running[reference] = _Running(self._numbers, task, tries)

    def _hear(self) -> set[int]:
        """Pass the reports on; returns the numbers of the workers that have begun."""
        packed, began = self._ray.get(self._inbox.take.remote())
        for reports in packed:
            for each in pickle.loads(reports):  # noqa: S301 - from our own workers
                self._on_report(each)
        return set(began)

    def _ended(self, reference: Any) -> None:
        ended = self._running.pop(reference)
        error = self._outcome(reference)
        if error is None:
            return
        if not isinstance(error, (WorkerLost, Overtaken)):
            raise error
        left = self._renew(ended.task)
        if left is None:
            return
        tries = ended.tries + 1 if left == ended.task else 0
        if tries > self._settings.retries:
            raise error
        logger().warning("a worker is replaced", worker=ended.number, why=error.found)
        self._submit(left, tries)

    def _outcome(self, reference: Any) -> MigratorError | None:
        from ray import exceptions

        try:
            error: MigratorError | None = self._ray.get(reference)
        except exceptions.RuntimeEnvSetupError as exc:
            return UsageError(
                f"the workers' environment cannot be set up: {_first_line(exc)}",
                next_step="correct [ray] runtime_env",
            )
        except exceptions.RayTaskError as exc:
            return UsageError(
                f"a worker cannot begin: {_last_line(exc)}",
                expected="migrator's dependencies on every node, for the same Python",
                next_step="put them in the nodes' image, or in [ray] runtime_env",
            )
        except exceptions.RayError as exc:
            return WorkerLost(
                f"a worker of the cluster was lost: {_first_line(exc)}", next_step=AGAIN
            )
        return error

    def _watch(self, began: set[int]) -> None:
        """Say where the cluster has no room for any worker, and give up where that lasts too long."""
        now = time.monotonic()
        if not self._running or any(each.number in began for each in self._running.values()):
            self._idle_since, self._is_wait_told = now, False
            return
        waited = now - self._idle_since
        if waited > self._settings.wait_s:
            raise Busy(
                f"no worker has begun for {self._settings.wait_s:g} s: the cluster has no room",
                expected=f"{self._needed()}; free in all: {self._ray.available_resources()}",
                next_step="add a node, or lower cpus_per_worker and memory_mb_per_worker in [ray]",
            )
        if waited > WAIT_UNTOLD_S and not self._is_wait_told:
            self._is_wait_told = True
            logger().warning("waiting for room on the Ray cluster", needed=self._needed())

    def _needed(self) -> str:
        cpus, memory = self._options["num_cpus"], self._options["memory"]
        return f"a node with {cpus:g} CPUs and {memory:,} bytes of memory free"


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)


def _last_line(exc: BaseException) -> str:
    return str(exc).strip().splitlines()[-1]
