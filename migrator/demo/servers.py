"""The demo's own servers and folder: gone when it ends, or left standing where that is asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import Refused
from migrator.sandbox import standing, start_sandbox
from migrator.sandbox.cache import Say
from migrator.sandbox.parts import Kind


@dataclass(frozen=True)
class Servers:
    database_url: str
    bootstrap_servers: str
    kind: str


@contextmanager
def servers(postgres: str, kind: Kind, *, keep: bool, say: Say) -> Iterator[Servers]:
    """Start both servers, empty; they end with the block, unless `keep` and the block succeeds.

    Raises:
        Refused: they shall be kept, and a standing sandbox is up already.
        MigratorError: a server does not start.
    """
    if keep:
        with _standing(postgres, kind, say) as kept:
            yield kept
        return
    with start_sandbox(postgres=postgres, kind=kind, say=say) as own:
        yield Servers(own.database_url, own.bootstrap_servers, own.kind)


@contextmanager
def _standing(postgres: str, kind: Kind, say: Say) -> Iterator[Servers]:
    up = standing.up(postgres, kind, say)
    if up.was_up:
        raise Refused(
            "a sandbox is up already, and may hold another demo's tables and topics",
            expected="none: the demo starts on empty servers",
            next_step="migrator sandbox down, then run the same command again",
        )
    try:
        yield Servers(up.database_url, up.bootstrap_servers, up.kind)
    except BaseException:
        standing.down()
        raise


@contextmanager
def folder(*, keep: bool) -> Iterator[Path]:
    """Make a folder for the project; it goes with the block, unless `keep` and the block succeeds."""
    made = Path(tempfile.mkdtemp(prefix="migrator-demo-")).resolve()
    try:
        yield made
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if not keep:
        shutil.rmtree(made)
