"""The demo's project: the sample files in a folder of their own, and settings that see nothing else."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import migrator
from migrator import settings
from migrator.errors import MigratorError
from migrator.settings import SETTINGS_FILE, Settings

TOML = """\
# Where PostgreSQL and Kafka are comes from the environment:
#   MIGRATOR_DATABASE_URL, MIGRATOR_KAFKA_BOOTSTRAP_SERVERS
[migrations]
directory = "migrations"

[projections]
directory = "projections"
"""
FOLDERS = ("migrations", "projections")
KEPT = "MIGRATOR_CACHE_DIR"


def sample() -> Path:
    """Give the folder of the sample project: the package's own, or the checkout's.

    Raises:
        MigratorError: the package was installed without it.
    """
    package = Path(migrator.__file__).parent
    for folder in (package / "demo" / "sample", package.parent):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    raise MigratorError(
        f"this migrator in {package} has no sample project",
        expected="migrator/demo/sample, which every wheel of it carries",
        next_step="install migrator again",
    )


def lay_out(folder: Path) -> None:
    """Copy the sample project into the empty `folder`, with a settings file."""
    for name in FOLDERS:
        shutil.copytree(
            sample() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    (folder / SETTINGS_FILE).write_text(TOML, encoding="utf-8")


def load(folder: Path, *, database_url: str, bootstrap_servers: str) -> Settings:
    """Read the project's settings as every command does, with the demo's servers; see `alone`."""
    servers = {
        "database": {"url": database_url},
        "kafka": {"bootstrap.servers": bootstrap_servers},
    }
    return settings.load(config=folder / SETTINGS_FILE, overrides=servers)


@contextmanager
def alone() -> Iterator[None]:
    """Hide every variable that could lead to another database or broker, until the block ends.

    libpq reads PG* even beside a whole URL: PGHOSTADDR alone would send the demo elsewhere.
    """
    hidden = {name: value for name, value in os.environ.items() if _leads_elsewhere(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _leads_elsewhere(name: str) -> bool:
    return name != KEPT and name.startswith(("MIGRATOR_", "PG", "DATABASE_URL"))


# What a developer does next: the same file, edited.
EDIT = (
    (
        "    last_order_at: Mapped[datetime]\n\n",
        "    last_order_at: Mapped[datetime]\n    second_order_at: Mapped[datetime | None]\n\n",
    ),
    (
        "        self.last_order_at = event.placed_at\n",
        (
            "        if self.orders == 2:\n"
            "            self.second_order_at = event.placed_at\n"
            "        self.last_order_at = event.placed_at\n"
        ),
    ),
)


def edit_customers(folder: Path) -> str:
    """Add the column second_order_at to the definition of customers; return the change as a diff.

    Raises:
        MigratorError: the file is not the sample that the edit was written for.
    """
    path = folder / "projections" / "customers.py"
    before = after = path.read_text(encoding="utf-8")
    for old, new in EDIT:
        if after.count(old) != 1:
            raise MigratorError(f"{path} does not have the line {old.strip()!r} once")
        after = after.replace(old, new)
    path.write_text(after, encoding="utf-8")
    return "".join(_diff(before, after))


def _diff(before: str, after: str) -> Iterator[str]:
    name = "projections/customers.py"
    return difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, name, n=1
    )
