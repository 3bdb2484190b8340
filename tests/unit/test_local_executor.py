"""The local executor: one process a task, no orphan, every failure heard."""

from __future__ import annotations

import os
import signal

import pytest

from migrator.errors import MigratorError, Refused
from migrator.executors import local


def double(task: int, report) -> None:
    report((os.getpid(), task * 2))


def refuse(task: int, report) -> None:
    raise Refused(f"no {task}", offset=task)


def crash(task: int, report) -> None:
    raise ZeroDivisionError(f"task {task}")


def die(task: int, report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_beside_a_sleeper(task: int, report) -> None:
    if task == 0:
        raise Refused("first")
    report(os.getpid())
    signal.pause()


def heard(function, tasks):
    reports: list = []
    local.run(function, tasks, reports.append)
    return reports


def test_each_task_runs_in_a_process_of_its_own():
    reports = heard(double, [1, 2, 3])
    assert sorted(value for _, value in reports) == [2, 4, 6]
    assert len({pid for pid, _ in reports} | {os.getpid()}) == 4


def test_a_workers_error_arrives_whole():
    with pytest.raises(Refused, match="no 7") as caught:
        heard(refuse, [7])
    assert caught.value.data == {"offset": 7}


def test_a_workers_bug_arrives_with_its_traceback():
    with pytest.raises(MigratorError, match="ZeroDivisionError: task 1") as caught:
        heard(crash, [1])
    assert "in crash" in caught.value.data["traceback"]


def test_a_lost_worker_is_told_from_a_failed_one():
    with pytest.raises(MigratorError, match="ended by signal 9"):
        heard(die, [1])


def test_no_worker_outlives_a_failure_of_another():
    pids: list[int] = []
    with pytest.raises(Refused):
        local.run(fail_beside_a_sleeper, [1, 0], pids.append)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_no_task_is_no_work():
    assert heard(double, []) == []
