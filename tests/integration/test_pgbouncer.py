"""What happens behind a real PgBouncer in transaction mode; docs/adr/0009 draws the conclusion."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests import revisions

PACKAGES = ("pgbouncer", "libevent-2.1-7", "libc-ares2")


@pytest.fixture(scope="session")
def pgbouncer(tmp_path_factory) -> tuple[str, dict[str, str]]:
    """The program and its environment: installed, or unpacked from the distribution's package."""
    if found := shutil.which("pgbouncer"):
        return found, dict(os.environ)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("pgbouncer is not installed, and there is no apt-get to fetch it with")
    folder = tmp_path_factory.mktemp("pgbouncer")
    fetched = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        pytest.skip(f"pgbouncer cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    libraries = {str(found.parent) for found in folder.rglob("*.so*")}
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}
    program = str(folder / "usr/sbin/pgbouncer")
    if subprocess.run([program, "--version"], env=env, capture_output=True, check=False).returncode:
        pytest.skip("the distribution's pgbouncer does not run here")
    return program, env


@pytest.fixture
def pooled(pgbouncer, database_url, make_settings, tmp_path, monkeypatch):
    """`pooled(line, ...)`: the settings name a PgBouncer with these lines in its configuration."""
    program, env = pgbouncer
    where = conninfo_to_dict(database_url)
    running = []
    made = tempfile.TemporaryDirectory(prefix="pgbouncer")
    folder = Path(made.name)

    def start(*lines: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (folder / "users.txt").write_text(f'"{where["user"]}" ""\n')
        ini = folder / "pgbouncer.ini"
        ini.write_text(
            f"[databases]\n{where['dbname']} = user={where['user']} host={where['host']} "
            f"port={where['port']}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"auth_file = {folder}/users.txt\nlogfile = {folder}/log\npool_mode = transaction\n"
            + "".join(f"{line}\n" for line in lines)
        )
        folder.chmod(0o777)  # as root it changes its user, and writes its log here
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [program, *as_user, ini], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        running.append(process)
        url = f"postgresql://{where['user']}@127.0.0.1:{port}/{where['dbname']}?sslmode=disable"
        limit = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, "it did not start"
                assert time.monotonic() < limit, Path(folder / "log").read_text()
                time.sleep(0.05)
        make_settings(tmp_path)
        monkeypatch.setenv("MIGRATOR_DATABASE_URL", url)
        return url

    yield start
    for process in running:
        process.terminate()
        process.wait(10)
    made.cleanup()


def test_a_pooler_that_takes_no_options_is_refused_by_name(pooled, tmp_path, cli, db):
    revisions.tables(tmp_path, 1)
    pooled()
    result = cli("up")
    assert result.exit_code == 3, result.output
    assert "a connection pooler lies between migrator and PostgreSQL" in result.stderr
    assert "unsupported startup parameter" in result.stderr
    assert "next: use PostgreSQL's own host and port" in result.stderr


def test_a_pooler_that_drops_the_options_is_found_out_before_anything_is_written(
    pooled, tmp_path, cli, db
):
    revisions.tables(tmp_path, 1)
    url = pooled("ignore_startup_parameters = options")
    with psycopg.connect(url, options="-c lock_timeout=123ms") as conn:
        assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)
    result = cli("up")
    assert result.exit_code == 3, result.output
    assert "the session does not have the settings it was opened with" in result.stderr
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_a_setting_of_one_client_reaches_another(pooled, tmp_path, db):
    """Why a pooler is refused: this is what a revision's SET, or a session's lock, would meet."""
    url = pooled("ignore_startup_parameters = options", "default_pool_size = 1")
    with (
        psycopg.connect(url, autocommit=True) as one,
        psycopg.connect(url, autocommit=True) as other,
    ):
        one.execute("SET search_path = pg_catalog")
        assert other.execute("SHOW search_path").fetchone() == ("pg_catalog",)
