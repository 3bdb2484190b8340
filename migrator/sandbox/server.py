"""A server process: started with few rights, waited for, stopped within a deadline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import MigratorError
from migrator.sandbox import machine
from migrator.sandbox.watchdog import Watchdog

READY_DEADLINE_S = 90.0
_POLL_S = 0.02
_LAST_LINES = 15
_PORT_IS_TAKEN = "Address already in use"


class PortTakenError(Exception):
    """Somebody took the port between our choice and the server's start."""


class StoppedError(Exception):
    """The sandbox is no longer wanted; raised out of a wait for a server."""


@dataclass(frozen=True)
class Server:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        return self.process.pid


class Host:
    """The run folder of one sandbox and every process that runs in it."""

    def __init__(self, run_dir: Path, watchdog: Watchdog, stop_asked: Callable[[], bool]) -> None:
        self.run_dir = run_dir
        self.log_dir = run_dir / "logs"
        self._watchdog = watchdog
        self._stop_asked = stop_asked
        self._given_up = threading.Event()
        self._running: dict[int, Server] = {}

    def make_folder(self, name: str) -> Path:
        """Make a folder under the run folder that only the servers' account may enter."""
        folder = self.run_dir / name
        folder.mkdir(mode=0o700)
        machine.hand_over(folder)
        return folder

    def give_up(self) -> None:
        """Let all waits for a server end: another part of the sandbox failed."""
        self._given_up.set()

    def check_wanted(self) -> None:
        if self._given_up.is_set() or self._stop_asked():
            raise StoppedError

    def hold(self, server: Server) -> None:
        self._running[server.pid] = server
        self._watchdog.hold(server.pid, server.stop_signal)

    def drop(self, server: Server) -> None:
        """Forget a process that was waited for."""
        self._watchdog.drop(server.pid)
        del self._running[server.pid]

    def stop(self, deadline_s: float) -> None:
        """Ask all servers to stop at once; kill those that have not by the deadline."""
        running = list(self._running.values())
        for each in running:
            if each.process.poll() is None:
                each.process.send_signal(each.stop_signal)
        deadline = time.monotonic() + deadline_s
        for each in running:
            try:
                each.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()
            self.drop(each)


def launch(
    host: Host, name: str, command: Sequence[str], folder: Path, stop_signal: signal.Signals
) -> Server:
    """Start `command` in `folder` under the servers' account, its output in a log of that name.

    Raises:
        StoppedError: the sandbox is no longer wanted.
        MigratorError: the program cannot be run.
    """
    host.check_wanted()
    log = host.log_dir / f"{name}.log"
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **machine.identity(),
            )
    except OSError as exc:
        raise MigratorError(
            f"{command[0]} cannot be run: {exc.strerror}",
            expected="a program that this machine runs",
            next_step="remove the cache folder of migrator and run the command again",
        ) from exc
    started = Server(name, process, log, stop_signal)
    host.hold(started)
    return started


def run(host: Host, name: str, command: Sequence[str], folder: Path) -> None:
    """Run `command` to its end.

    Raises:
        MigratorError: it failed; the message names its log and shows the end of it.
    """
    step = launch(host, name, command, folder, signal.SIGTERM)
    status = step.process.wait()
    host.drop(step)
    if status != 0:
        raise failure(step)


def await_ready(host: Host, server: Server, answers: Callable[[], bool]) -> None:
    """Wait until `answers()` is true.

    Raises:
        PortTakenError: the server found its port in use.
        StoppedError: the keeper was asked to stop.
        MigratorError: the server ended, or does not answer in time.
    """
    deadline = time.monotonic() + READY_DEADLINE_S
    while not answers():
        if server.process.poll() is not None:
            host.drop(server)
            if _PORT_IS_TAKEN in server.log.read_text(errors="replace"):
                raise PortTakenError
            raise failure(server)
        host.check_wanted()
        if time.monotonic() > deadline:
            raise failure(server)
        time.sleep(_POLL_S)


def failure(server: Server) -> MigratorError:
    """Describe a server that did not start, with the end of its log."""
    status = server.process.poll()
    what = (
        f"does not answer after {READY_DEADLINE_S:.0f} s"
        if status is None
        else f"ended with status {status}"
    )
    lines = server.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    shown = "\n".join(f"  {line}" for line in lines) or "  (the log is empty)"
    return MigratorError(
        f"{server.name} {what}; its log {server.log} ends with:\n{shown}",
        expected="the server to start and to answer",
        next_step=f"read {server.log}; if a file of the server is damaged, remove the cache "
        "folder of migrator and run the command again",
        log=str(server.log),
    )


def free_ports(count: int) -> list[int]:
    """Choose `count` loopback ports that nobody listens on now; one may be taken before its use."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listens(port: int) -> bool:
    """Tell whether a connection to the port is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _environment(folder: Path) -> dict[str, str]:
    # Nothing of the user's reaches a server: neither PG* nor JAVA_TOOL_OPTIONS nor a locale.
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "TZ": "UTC",
        "LC_ALL": "C",
    }
