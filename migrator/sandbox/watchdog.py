"""A small process that ends the servers if their keeper is killed.

A keeper ended by SIGKILL cannot stop anything itself. The watchdog reads from a pipe that only the
keeper holds open, so that it sees the keeper's end on every system, and it holds no port or lock.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_DEADLINE_TENTHS = 50
_SCRIPT = """
held=
while read -r verb pid name; do
  case $verb in
    hold) held="$held $pid:$name" ;;
    drop) kept=
      for each in $held; do [ "${each%:*}" = "$pid" ] || kept="$kept $each"; done
      held=$kept ;;
    leave) exit 0 ;;
  esac
done
for each in $held; do kill -s "${each#*:}" "${each%:*}" 2>/dev/null; done
for each in $held; do
  left=$2
  while [ "$left" -gt 0 ] && kill -0 "${each%:*}" 2>/dev/null; do sleep 0.1; left=$((left - 1)); done
  kill -s KILL "${each%:*}" 2>/dev/null
done
rm -rf -- "$1"
"""


class Watchdog:
    """Ends the held processes and removes the run folder, should this process die.

    Leaving the block normally, or by an error, tells it to do nothing.
    """

    def __init__(self, run_dir: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "migrator-watchdog", run_dir, str(_DEADLINE_TENTHS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # A signal to the keeper's process group must not reach it.
            start_new_session=True,
        )

    def hold(self, pid: int, stop_signal: signal.Signals) -> None:
        self._tell(f"hold {pid} {stop_signal.name.removeprefix('SIG')}")

    def drop(self, pid: int) -> None:
        """Forget a process that was waited for: its id may be given to another."""
        self._tell(f"drop {pid}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell("leave")
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        # One short write is atomic, also between threads.
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # somebody killed the watchdog; the servers run on without it
