"""Run one function over several tasks, each in a process of its own on this machine.

Nothing here knows what the function does. A worker dies with its parent, so that no orphan goes on
writing after a `kill -9`; Ctrl-C is the parent's to handle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Any

from migrator.errors import MigratorError, WorkerLost
from migrator.executors.executor import Function, Renew, Report, Task, failure

GRACE_S = 5.0


@dataclass(frozen=True)
class _Failure:
    error: MigratorError


@dataclass(frozen=True)
class _Done:
    pass


def warm_up(module: str) -> None:
    """Start the process that workers are forked from, with the module of their function imported.

    It costs the caller nothing to wait for: the import goes on beside what the caller does next,
    its own import of that module among it.
    """
    _context(module)
    forkserver.ensure_running()


def _context(module: str) -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def run(
    function: Function[Task],
    tasks: Sequence[Task],
    on_report: Report,
    renew: Renew[Task],  # noqa: ARG001 - see below
) -> None:
    """As `Executor.run`, on this machine.

    A lost worker is not tried again: it was most often out of memory, and would be again.

    Raises:
        MigratorError: the first error of any worker, or that one was lost; the others are ended.
    """
    context = _context(function.__module__)
    workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
    try:
        for number, task in enumerate(tasks, 1):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(function, task, theirs), name=f"migrator worker {number}"
            )
            worker.start()
            theirs.close()
            workers[ours] = worker
        _listen(workers, on_report)
    finally:
        _end(list(workers.values()))


def _listen(
    workers: dict[Connection, multiprocessing.process.BaseProcess], on_report: Report
) -> None:
    open_pipes = set(workers)
    while open_pipes:
        for pipe in wait(list(open_pipes)):
            assert isinstance(pipe, Connection)
            try:
                said = pipe.recv()
            except EOFError:
                raise _lost(workers[pipe]) from None
            if isinstance(said, _Failure):
                raise said.error
            if isinstance(said, _Done):
                open_pipes.remove(pipe)
            else:
                on_report(said)


def _lost(worker: multiprocessing.process.BaseProcess) -> WorkerLost:
    worker.join(GRACE_S)
    code = worker.exitcode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return WorkerLost(
        f"a worker process ended {how}",
        expected="it to finish; signal 9 is often the system's, out of memory",
        next_step="run the same command again: it goes on from what is committed",
    )


def _end(workers: list[multiprocessing.process.BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(GRACE_S)
        if worker.is_alive():
            worker.kill()
            worker.join()


def _work(function: Function[Any], task: Any, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    _die_with_parent()
    error = failure(function, task, pipe.send)
    pipe.send(_Done() if error is None else _Failure(error))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    watch = threading.Thread(
        target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True, name="parent watch"
    )
    watch.start()
