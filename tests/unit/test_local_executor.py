"""The local executor: one process a task, no orphan, every failure heard."""

from __future__ import annotations

import os
import signal

import pytest

from migrator.errors import Refused, WorkerLost
from migrator.executors import local
from tests.executors import Conformance, nothing_left


def die(task: int, report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_beside_a_sleeper(task: int, report) -> None:
    if task == 0:
        raise Refused("first")
    report(os.getpid())
    signal.pause()


class TestLocal(Conformance):
    @pytest.fixture
    def executor(self):
        return local


def test_a_lost_worker_is_told_from_a_failed_one():
    with pytest.raises(WorkerLost, match="ended by signal 9"):
        local.run(die, [1], print, nothing_left)


def test_no_worker_outlives_a_failure_of_another():
    pids: list[int] = []
    with pytest.raises(Refused):
        local.run(fail_beside_a_sleeper, [1, 0], pids.append, nothing_left)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
