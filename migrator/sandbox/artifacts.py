"""Files from Maven Central, pinned by version and SHA-256 in the lock files beside this module."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from migrator.errors import CannotConnect, MigratorError, UsageError
from migrator.sandbox import machine

_THREADS = 8
_TIMEOUT_S = 60
_ATTEMPTS = 3


@dataclass(frozen=True)
class Artifact:
    group: str
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.jar"


def read_lock(name: str) -> list[Artifact]:
    """Read the pins of `name`, one `group artifact version sha256` a line."""
    return [Artifact(*line.split()) for line in _lock_text(name).splitlines() if line]


def lock_digest(name: str) -> str:
    """Give a short name to the exact set of files that a lock pins."""
    return hashlib.sha256(_lock_text(name).encode()).hexdigest()[:12]


def _lock_text(name: str) -> str:
    return resources.files("migrator.sandbox").joinpath(name).read_text(encoding="utf-8")


def fetch(artifacts: list[Artifact], into: Path) -> list[Path]:
    """Download `artifacts` into the folder `into`, each checked against its SHA-256.

    Raises:
        CannotConnect: the registry does not answer.
        MigratorError: a file is not the one that was pinned.
    """
    scratch = into / ".download"
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda artifact: _resolve_checked(artifact, scratch), artifacts))
    placed = [path.rename(into / path.name) for path in found]
    shutil.rmtree(scratch)
    return placed


def _resolve_checked(artifact: Artifact, scratch: Path) -> Path:
    path = _resolve_with_retries(artifact, scratch)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual == artifact.sha256:
        return path
    raise MigratorError(
        f"{artifact.filename} is not the file that was pinned: its SHA-256 is {actual}",
        expected=artifact.sha256,
        next_step="run the command again; if this stays, something between here and "
        "Maven Central changes files",
    )


def _resolve_with_retries(artifact: Artifact, scratch: Path) -> Path:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _resolve(artifact, scratch)
        except (OSError, RuntimeError) as exc:
            # A file cut short counts as downloaded to jgo.
            for part in scratch.rglob(artifact.filename):
                part.unlink()
            if attempt == _ATTEMPTS:
                raise CannotConnect(
                    f"{artifact.filename} could not be fetched from Maven Central: {exc}",
                    expected="Maven Central to answer, through HTTPS_PROXY if one is needed",
                    next_step="check the network and run the command again, "
                    "or start the servers with: docker compose up --wait",
                ) from exc
    raise AssertionError


def _resolve(artifact: Artifact, scratch: Path) -> Path:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=scratch, timeout=_TIMEOUT_S)
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    return Path(component.artifact("", "jar").resolve())


def require_packages(*modules: str) -> None:
    """Check that the packages of the extra are there.

    Raises:
        UsageError: one is missing.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise extra_is_missing(module)


def extra_is_missing(module: str, extra: str = "sandbox") -> UsageError:
    return UsageError(
        f"the sandbox needs the Python package {module}, which is not installed",
        expected=f"migrator with its extra {extra!r}",
        next_step=machine.install_hint(extra),
    )
