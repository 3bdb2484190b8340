"""What a peer is, and what all of them need."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import conninfo, sql

from migrator.sandbox import artifacts, cache

HERE = Path(__file__).parent
ENGINES = HERE.parents[1] / ".venv-peers"
PARALLEL = 2
NEEDED = "jdk.incubator.vector"


@dataclass(frozen=True)
class Peer:
    """A command that folds the topic into `table`, which is there, and empty, when it starts."""

    name: str
    table: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    key_first: bool = False
    """Whether it writes by the primary key; else the key is made of the rows, in its time."""


def run(peer: Peer, database_url: str) -> float:
    """Run the peer once; returns wall seconds of its command and, where it comes after, its key."""
    table = sql.Identifier(peer.table)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        conn.execute(sql.SQL("CREATE TABLE {} (LIKE expected)").format(table))
        key = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (order_id)").format(table)
        if peer.key_first:
            conn.execute(key)
        began = time.perf_counter()
        done = subprocess.run(
            peer.command,
            env={**os.environ, **peer.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{peer.name} failed:\n{done.stdout.decode(errors='replace')}")
        if not peer.key_first:
            conn.execute("SET maintenance_work_mem = '512MB'")
            conn.execute(key)
        return time.perf_counter() - began


def jars(lock: str) -> list[Path]:
    """The jars that a lock file of this folder pins, downloaded once."""
    text = (HERE / lock).read_text(encoding="utf-8")
    pins = [artifacts.Artifact(*line.split()) for line in text.splitlines()]

    def build(folder: Path) -> None:
        print(f"Fetching the {len(pins)} jars of {lock}, once ...", flush=True)
        artifacts.fetch(pins, folder)

    name = f"peers-{Path(lock).stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return sorted(cache.fill(name, build, print).glob("*.jar"))


def jdbc_url(database_url: str) -> str:
    """The database as the driver names it, with what both engines need to be quick and typed."""
    found = conninfo.conninfo_to_dict(database_url)
    options = "reWriteBatchedInserts=true&stringtype=unspecified"
    return f"jdbc:postgresql://{found['host']}:{found['port']}/{found['dbname']}?{options}"


def user(database_url: str) -> tuple[str, str]:
    """Name and password; the sandbox trusts, and a driver that wants some word gets one."""
    found = conninfo.conninfo_to_dict(database_url)
    return str(found.get("user", "postgres")), str(found.get("password", "none"))


def java_home() -> Path:
    """The home of a whole Java of version 17 or newer; the sandbox's own has no vectors."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin" if home else None)
    if program is None:
        raise SystemExit(_no_java("none"))
    told = subprocess.run([program, "--list-modules"], capture_output=True, text=True, check=False)
    if NEEDED not in told.stdout:
        raise SystemExit(_no_java(program))
    return Path(program).resolve().parents[1]


def _no_java(found: str) -> str:
    return (
        f"the peers need a Java of version 17 or newer that has the module {NEEDED}; found: "
        f"{found}\ninstall a JDK, and name it by JAVA_HOME if it is not on PATH"
    )
