"""Every error that migrator raises on purpose.

    MigratorError              exit 1   the work failed; live is untouched unless the message says so
    ├── UsageError             exit 2   the command line names something that does not exist
    │   └── SettingsError               settings are missing or malformed, all of them at once
    ├── Refused                exit 3   a safety rule forbids it; the message names the way on
    │   ├── Fenced                      another definition is live than this projector's
    │   └── RowRefused                  the table does not take a row that an event has made
    ├── WorkerLost             exit 1   a worker ended without a word; what it committed is kept
    ├── Overtaken              exit 1   another worker has done what this one was about to do
    ├── Busy                   exit 4   somebody else holds what we need, or a deadline passed
    ├── CannotConnect          exit 5   PostgreSQL or Kafka does not answer or does not let us in
    ├── DeployRolledBack       exit 7   a deployment was not healthy, and is undone
    └── RollbackFailed         exit 8   it was not healthy, and could not be undone by itself

A message has three parts: what was found, what was expected, what to do next. Everything else that a
program may want (offsets, names, blockers) lies in `data`, as plain JSON values.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self


class MigratorError(Exception):
    """Base of the tree; by itself: the work failed."""

    exit_code = 1
    code = "failed"

    def __init__(self, found: str, *, expected: str = "", next_step: str = "", **data: Any) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.next_step = next_step
        self.data = data

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker's error crosses a process boundary; Exception pickles positional arguments only.
        return _rebuild, (type(self), self.found, self.expected, self.next_step, self.data)

    def as_json(self) -> dict[str, Any]:
        return {
            "error": self.code,
            "exit_code": self.exit_code,
            "found": self.found,
            "expected": self.expected,
            "next": self.next_step,
            "data": self.data,
        }


def _rebuild(
    cls: type[MigratorError], found: str, expected: str, next_step: str, data: dict[str, Any]
) -> MigratorError:
    return cls(found, expected=expected, next_step=next_step, **data)


class UsageError(MigratorError):
    exit_code = 2
    code = "usage"

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str], *, next_step: str = "") -> Self:
        """Say that `name` is no `kind`, with the nearest known names."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if near:
            expected = f"did you mean {' or '.join(near)}?"
        elif names:
            expected = f"one of: {', '.join(names)}"
        else:
            expected = f"there is no {kind} at all yet"
        return cls(
            f"unknown {kind} {name!r}",
            expected=expected,
            next_step=next_step,
            name=name,
            known=names,
        )


class SettingsError(UsageError):
    code = "settings"


class Refused(MigratorError):
    exit_code = 3
    code = "refused"


class Fenced(Refused):
    code = "fenced"


class RowRefused(Refused):
    code = "row-refused"


class Busy(MigratorError):
    exit_code = 4
    code = "busy"


class WorkerLost(MigratorError):
    code = "worker-lost"


class Overtaken(MigratorError):
    code = "overtaken"


class CannotConnect(MigratorError):
    exit_code = 5
    code = "cannot-connect"


class DeployRolledBack(MigratorError):
    exit_code = 7
    code = "rolled-back"


class RollbackFailed(MigratorError):
    exit_code = 8
    code = "rollback-failed"
