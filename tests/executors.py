"""What every executor must do: one suite, run on all of them."""

from __future__ import annotations

import os

import pytest

from migrator.errors import MigratorError, Refused


def double(task: int, report) -> None:
    report((os.getpid(), task * 2))


def refuse(task: int, report) -> None:
    raise Refused(f"no {task}", offset=task)


def crash(task: int, report) -> None:
    raise ZeroDivisionError(f"task {task}")


def nothing_left(task):
    return None


class Conformance:
    """A subclass has the fixture `executor`."""

    def heard(self, executor, function, tasks):
        reports: list = []
        executor.run(function, tasks, reports.append, nothing_left)
        return reports

    def test_each_task_runs_in_a_process_of_its_own(self, executor):
        reports = self.heard(executor, double, [1, 2, 3])
        assert sorted(value for _, value in reports) == [2, 4, 6]
        assert len({pid for pid, _ in reports} | {os.getpid()}) == 4

    def test_a_workers_error_arrives_whole(self, executor):
        with pytest.raises(Refused, match="no 7") as caught:
            self.heard(executor, refuse, [7])
        assert caught.value.data == {"offset": 7}

    def test_a_workers_bug_arrives_with_its_traceback(self, executor):
        with pytest.raises(MigratorError, match="ZeroDivisionError: task 1") as caught:
            self.heard(executor, crash, [1])
        assert "in crash" in caught.value.data["traceback"]

    def test_no_task_is_no_work(self, executor):
        assert self.heard(executor, double, []) == []
