"""A PostgreSQL of a test's own, which it may stop, restart and copy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from migrator.sandbox import machine, postgres, server
from migrator.sandbox.watchdog import Watchdog


class OwnServer:
    def __init__(self, host: server.Host, home: Path, data: Path) -> None:
        self._host, self._home, self.data = host, home, data
        (self._port,) = server.free_ports(1)
        self._running: server.Server | None = None

    @property
    def url(self) -> str:
        return postgres.url(self._port)

    def start(self) -> None:
        """Start it, always on the same port; returns when it answers."""
        self._running = postgres.start(self._host, self._home, self.data, self._port)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT is pg_ctl's `stop -m immediate`, a crash; SIGINT is `fast`."""
        assert self._running is not None
        self._running.process.send_signal(how)
        self._running.process.wait(60)
        self._host.drop(self._running)

    def restart(self) -> None:
        self.stop()
        self.start()

    def standby(self) -> OwnServer:
        """A hot standby that follows it; it is stopped for a moment."""
        self.stop(signal.SIGINT)
        copy = self.data.parent.with_name("standby") / "data"
        self._host.make_folder("standby")
        subprocess.run(["cp", "-a", str(self.data), str(copy)], check=True)
        self.start()
        (copy / "standby.signal").touch()
        with (copy / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{self.url}'\n")
        made = OwnServer(self._host, self._home, copy)
        made.start()
        return made


@contextmanager
def own_server(major: str) -> Iterator[OwnServer]:
    run_dir = Path(tempfile.mkdtemp(prefix="migrator-test-")).resolve()
    run_dir.chmod(0o711)
    (run_dir / "logs").mkdir()
    try:
        with Watchdog(run_dir) as watchdog:
            host = server.Host(run_dir, watchdog, lambda: False)
            home = postgres.install(major, lambda _said: None)
            made = OwnServer(host, home, postgres.initialize(host, home))
            try:
                made.start()
                with psycopg.connect(made.url, autocommit=True) as conn:
                    # The sandbox may lose in a crash what it had acknowledged; here that would count.
                    conn.execute("ALTER ROLE postgres SET synchronous_commit = on")
                yield made
            finally:
                host.stop(10)
    finally:
        shutil.rmtree(run_dir)


def resize(disk: Path, size: str) -> None:
    """Give a disk of `small_disk` another size; what is on it stays."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder that holds no more than `size`, for a tablespace.

    Raises:
        OSError: this account may not mount one.
    """
    folder = Path(tempfile.mkdtemp(prefix="migrator-test-")).resolve()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise OSError(done.stderr.strip())
        try:
            machine.hand_over(folder)
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()
