"""The lock and the state file of the sandbox that `sandbox up` leaves standing.

Its keeper holds the lock for its whole life, and the system lets go of it at any end. So whoever
finds the lock held knows that the process in the state file is a keeper of ours, and whoever can
take it knows that there is none, also after a reboot or when the process id was given to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from migrator.errors import Busy
from migrator.sandbox.plan import Ready

_LOCK = "sandbox.lock"
_STATE = "sandbox.json"
# Who only looks whether the lock is held takes it for an instant.
_TIMEOUT_S = 0.2


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock.

    Raises:
        Busy: another keeper holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / _LOCK, timeout=_TIMEOUT_S):
            yield
    except Timeout as exc:
        raise Busy(
            "a sandbox is already up or about to be",
            expected="one standing sandbox for each user",
            next_step="migrator sandbox up, to see it; migrator sandbox down, to stop it",
        ) from exc


def is_held(folder: Path) -> bool:
    try:
        with held(folder):
            return False
    except Busy:
        return True


def write(folder: Path, ready: Ready) -> None:
    """Write the state file in one step."""
    draft = folder / f"{_STATE}.new"
    draft.touch(mode=0o600)  # the address of a container has a password
    draft.write_bytes(msgspec.json.encode(ready))
    draft.rename(folder / _STATE)


def read(folder: Path) -> Ready | None:
    try:
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=Ready)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def remove(folder: Path) -> None:
    (folder / _STATE).unlink(missing_ok=True)
