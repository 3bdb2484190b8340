"""Start a keeper and read its answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

import migrator
from migrator.errors import MigratorError, SettingsError
from migrator.sandbox import machine
from migrator.sandbox.plan import Answer, Plan, Ready

STOP_MARGIN_S = 10.0
# The keeper finds what we find, however we came to find it; last, so that nothing is hidden by it.
_START = """
import os, sys
sys.path += [each for each in sys.argv.pop(1).split(os.pathsep) if each not in sys.path]
from migrator.sandbox.keeper import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Keeper:
    """A running keeper and what it said."""

    process: subprocess.Popen[bytes]
    ready: Ready

    def stop(self) -> None:
        """End the servers; return when no process and no folder of theirs is left."""
        _close(self.process, self.ready.plan.stop_deadline_s)


def _make_run_dir() -> Path:
    run_dir = Path(tempfile.mkdtemp(prefix="migrator-sandbox-")).resolve()
    if not machine.reachable(run_dir):
        run_dir.rmdir()
        raise SettingsError(
            f"the folder for temporary files {run_dir.parent} is closed to the account that the "
            "servers run under as root",
            expected="execute permission for all on each folder above it",
            next_step="set TMPDIR to such a folder, or run migrator as another user",
        )
    run_dir.chmod(0o711)
    (run_dir / "logs").mkdir()
    return run_dir


def start_keeper(plan: Plan) -> Keeper:
    """Start what the plan says in a new run folder; return when it answers.

    An interruption leaves neither a process nor the folder.

    Raises:
        MigratorError: it does not start; the message names the log that is kept.
    """
    run_dir = _make_run_dir()
    try:
        process = _spawn(plan, run_dir)
        try:
            answer = _read_answer(process)
        except BaseException:
            _close(process, plan.stop_deadline_s)
            raise
    except BaseException:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise
    if answer.ready:
        if plan.standing:
            # It may outlive us, and if it does not it is waited for.
            threading.Thread(target=process.wait, daemon=True).start()
        return Keeper(process, answer.ready)
    _close(process, plan.stop_deadline_s)
    raise answer.failed.error() if answer.failed else _ended_silently(process, _log(run_dir))


def _log(run_dir: Path) -> Path:
    return run_dir / "logs" / "keeper.log"


def _spawn(plan: Plan, run_dir: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name[:2] != "PG"}
    folders = [*filter(None, sys.path), str(Path(migrator.__file__).parent.parent)]
    search = os.pathsep.join(str(Path(each).absolute()) for each in folders)
    command = [sys.executable, "-P", "-c", _START, search]
    arguments = [msgspec.json.encode(plan).decode(), str(run_dir)]
    with _log(run_dir).open("ab") as errors:
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL if plan.standing else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env=environment,
            # Ctrl-C is for the parent to act upon.
            start_new_session=True,
        )


def _read_answer(process: subprocess.Popen[bytes]) -> Answer:
    assert process.stdout
    line = process.stdout.readline()
    process.stdout.close()
    return msgspec.json.decode(line, type=Answer) if line else Answer()


def _close(process: subprocess.Popen[bytes], stop_deadline_s: float) -> None:
    if process.stdout:
        process.stdout.close()
    if process.stdin:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(stop_deadline_s + STOP_MARGIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ended_silently(process: subprocess.Popen[bytes], log: Path) -> MigratorError:
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    return MigratorError(
        f"the keeper of the sandbox ended with status {process.returncode}"
        + (f"; its log {log} ends with:\n{text[-1000:]}" if text else ""),
        expected="it to start the servers",
        next_step="run the command again",
        log=str(log),
    )
