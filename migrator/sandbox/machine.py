"""What this machine is: its platform, and the account that servers run under."""

from __future__ import annotations

import os
import platform
import pwd
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TypedDict

from migrator.errors import MigratorError

_SYSTEMS = {"linux": "linux", "darwin": "darwin"}
_PROCESSORS = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64v8",
    "arm64": "arm64v8",
}


class Identity(TypedDict, total=False):
    """Arguments of `subprocess.Popen` that drop the rights of root."""

    user: int
    group: int
    extra_groups: list[int]


def platform_name() -> str:
    """Name the platform the way the PostgreSQL archives do, such as `linux-amd64`.

    Raises:
        MigratorError: there are no embedded servers for this platform.
    """
    system, processor = sys.platform, platform.machine().lower()
    musl = "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE") or "")
    if system in _SYSTEMS and processor in _PROCESSORS and not musl:
        return f"{_SYSTEMS[system]}-{_PROCESSORS[processor]}"
    raise MigratorError(
        f"the embedded servers do not run on {system} {processor}{' with musl' if musl else ''}",
        expected="Linux with glibc, or macOS, on x86-64 or ARM64",
        next_step=f"start Docker, {install_hint('docker')}, and run "
        "migrator sandbox up --sandbox docker",
    )


def install_hint(extra: str) -> str:
    """Say how to get an extra: the public index has another project of migrator's name."""
    return f"install migrator's extra {extra!r}; in its checkout: pip install '.[{extra}]'"


def identity() -> Identity:
    """Give the account for the servers: `nobody` if we are root, else ourselves.

    PostgreSQL refuses to run as root. No account is created and no existing folder is changed.
    """
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def hand_over(folder: Path) -> None:
    """Give a folder that we made to the servers' account."""
    account = identity()
    if account:
        os.chown(folder, account["user"], account["group"])


def reachable(path: Path) -> bool:
    """Tell whether the servers' account can reach `path` through every folder above it."""
    if not identity():
        return True
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
