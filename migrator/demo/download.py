"""Get the CDNOW purchase log, which the wheel `lifetimes` carries, once into migrator's cache."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from migrator.errors import CannotConnect, UsageError
from migrator.sandbox import artifacts, cache

REQUIREMENT = "lifetimes==0.11.3"
SHA256 = "261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8"
MEMBER = "lifetimes/datasets/CDNOW_master.txt"
ITEM = f"cdnow-{SHA256[:12]}"
FILE = "CDNOW_master.txt"
TIMEOUT_S = 120


def purchase_log(say: cache.Say) -> str:
    """Return the log's text; fetched from the package index the first time, without dependencies.

    Raises:
        UsageError: neither pip nor uv is there to fetch it.
        CannotConnect: the index does not give it, or gives another file than the pinned one.
    """
    artifacts.require_packages("filelock")
    folder = cache.fill(ITEM, lambda draft: _fetch(draft, say), say)
    return (folder / FILE).read_text(encoding="ascii")


def _fetch(draft: Path, say: cache.Say) -> None:
    say("Fetching the CDNOW purchase log (0.6 MB, in a wheel) ...")
    with tempfile.TemporaryDirectory(prefix="migrator-demo-") as scratch:
        folder = Path(scratch)
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n", encoding="utf-8")
        _run(_client(pinned, folder / "got"))
        (draft / FILE).write_bytes(_extracted(folder / "got"))


def _client(pinned: Path, into: Path) -> list[str]:
    """The command of the client that the user has, set up as the user has set it up."""
    wanted = ["--no-deps", "--require-hashes", "--quiet", "-r", str(pinned)]
    if importlib.util.find_spec("pip"):
        options = ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
        return [sys.executable, "-m", "pip", "download", *options, *wanted, "--dest", str(into)]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        python = ["--python", sys.executable, "--target", str(into)]
        return [uv, "pip", "install", "--only-binary", ":all:", *python, *wanted]
    raise UsageError(
        "neither pip nor uv is there to download the purchase log",
        expected=f"one of them, for the wheel {REQUIREMENT}",
        next_step=f"{sys.executable} -m ensurepip, then run the same command again",
    )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as exc:
        raise _failed(f"no answer within {TIMEOUT_S} s") from exc
    if done.returncode != 0:
        raise _failed(done.stderr.strip()[-1000:])


def _failed(why: str) -> CannotConnect:
    return CannotConnect(
        f"the wheel {REQUIREMENT} could not be downloaded: {why}",
        expected=f"the package index to give it, with SHA-256 {SHA256}",
        next_step="check the network and the settings of pip or uv, then run the same command again",
    )


def _extracted(folder: Path) -> bytes:
    """Read the log from the wheel, or from where uv has unpacked it."""
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)
    return (folder / MEMBER).read_bytes()
