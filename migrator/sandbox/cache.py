"""The cache of what the sandbox downloads and prepares: each item is there in full or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from migrator.errors import SettingsError
from migrator.sandbox import machine

Say = Callable[[str], None]
ENVIRONMENT_VARIABLE = "MIGRATOR_CACHE_DIR"
# Root's own cache lies under a home that the servers' account cannot enter.
_FOR_ROOT = Path("/var/cache/migrator")
_QUIET_WAIT_S = 1.0


def cache_dir() -> Path:
    """Give the cache folder, made if need be, that the servers' account can reach.

    Raises:
        SettingsError: MIGRATOR_CACHE_DIR names a folder that cannot be used.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(named).expanduser().absolute() if named else _default()
    try:
        _make(folder)
        usable = machine.reachable(folder / "item")
    except OSError as exc:
        raise SettingsError(
            f"the cache folder {folder} cannot be made: {exc.strerror}",
            expected="a folder that can be written to",
            next_step=f"set {ENVIRONMENT_VARIABLE} to such a folder",
        ) from exc
    if usable:
        return folder
    raise SettingsError(
        f"the cache folder {folder} is closed to the account that the servers run under as root",
        expected="execute permission for all on each folder above it",
        next_step=f"set {ENVIRONMENT_VARIABLE} to such a folder, or run migrator as another user",
    )


def fill(name: str, build: Callable[[Path], None], say: Say) -> Path:
    """Return the item `name`, built once by `build(folder)` if it is not there.

    Safe with any number of processes at once: one builds, the others wait. A build that is killed
    or fails leaves nothing that counts as the item; the next one clears its remains.
    """
    from filelock import FileLock, Timeout

    base = cache_dir()
    item = base / name
    if item.exists():
        return item
    lock = FileLock(base / f"{name}.lock")
    try:
        lock.acquire(timeout=_QUIET_WAIT_S)
    except Timeout:
        say(f"Waiting for another process that prepares {name} ...")
        lock.acquire()
    try:
        if not item.exists():
            _build(item, build)
    finally:
        lock.release()
    return item


def _build(item: Path, build: Callable[[Path], None]) -> None:
    for left in item.parent.glob(f".{item.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{item.name}.", dir=item.parent))
    try:
        build(draft)
        _open_to_all(draft)
        draft.rename(item)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _open_to_all(folder: Path) -> None:
    """Let every account read the item, whatever the umask was."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        enter = 0o111 if path.is_dir() or mode & stat.S_IXUSR else 0
        path.chmod(mode | 0o444 | enter)
        if os.geteuid() == 0:
            os.chown(path, 0, 0)


def _default() -> Path:
    return _FOR_ROOT if os.geteuid() == 0 else platformdirs.user_cache_path("migrator")


def _make(folder: Path) -> None:
    """Make the folder and those above it; as root, open to the servers' account."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        folder.chmod(0o755)
