"""The process that owns a sandbox: it starts the servers and ends them, whatever ends its parent.

Started with a plan and a run folder as its arguments, it writes one line to stdout: that the servers answer, or why
not. It stops them when its stdin ends (its parent stopped it, exited or was killed), or at SIGTERM
where it stands by itself. Its own end by SIGKILL is the watchdog's business.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

import msgspec

from migrator.errors import MigratorError
from migrator.sandbox import containers, embedded, state
from migrator.sandbox.plan import Answer, Failed, Plan, Ready
from migrator.sandbox.server import Host, StoppedError
from migrator.sandbox.watchdog import Watchdog

_LOOK_S = 1.0
Servers = embedded.Servers | containers.Containers


class StopRequest:
    """Whether the sandbox is no longer wanted."""

    def __init__(self, parent_pid: int | None) -> None:
        self._parent_pid = parent_pid
        self._read, self._write = os.pipe()
        signal.signal(signal.SIGTERM, self._ask)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

    def asked(self, timeout_s: float = 0.0) -> bool:
        """Wait up to `timeout_s` for a request; it stays asked once it was."""
        stdin = 0
        watched = [self._read] if self._parent_pid is None else [self._read, stdin]
        # A child forked by the parent may hold the pipe open; the parent's id tells even then.
        return bool(select.select(watched, [], [], timeout_s)[0]) or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self._parent_pid is not None and os.getppid() != self._parent_pid

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        os.write(self._write, b"!")


def main() -> int:
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    request = StopRequest(plan.parent_pid)
    run_dir = Path(sys.argv[2])
    try:
        with Watchdog(run_dir) as watchdog, _standing(plan):
            host = Host(run_dir, watchdog, request.asked)
            servers = containers.Containers(plan) if plan.images else embedded.Servers(plan, host)
            _keep(plan, run_dir, servers, request)
    except MigratorError as exc:
        _answer(Answer(failed=Failed.of(exc)))
        return exc.exit_code
    return 0


def _keep(plan: Plan, run_dir: Path, servers: Servers, request: StopRequest) -> None:
    """Run the servers until the request; leave nothing behind but the logs of a failed start."""
    try:
        try:
            ready = Ready(servers.start(), plan, str(run_dir), os.getpid())
            if plan.standing:
                state.write(Path(plan.standing), ready)
            _answer(Answer(ready=ready))
            while not request.asked(_LOOK_S):
                pass
        finally:
            servers.stop()
    except StoppedError:
        shutil.rmtree(run_dir)
    except BaseException:
        for child in run_dir.iterdir():
            if child.name != "logs":
                shutil.rmtree(child) if child.is_dir() else child.unlink()
        raise
    else:
        shutil.rmtree(run_dir)
    finally:
        if plan.standing:
            state.remove(Path(plan.standing))


def _standing(plan: Plan) -> AbstractContextManager[object]:
    return state.held(Path(plan.standing)) if plan.standing else nullcontext()


def _answer(answer: Answer) -> None:
    """Write the one line, and then let go of stdout: the reader may be gone."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
