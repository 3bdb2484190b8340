"""The sandbox's cache: an item is there in full or not at all, whoever fills it and whatever ends them."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from migrator.errors import SettingsError
from migrator.sandbox import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache.machine, "reachable", lambda _path: True)
    return tmp_path


def say_nothing(_line):
    pass


def write_two_files(folder):
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")


def run_python(code, folder, *arguments):
    """Start a process that has `migrator` and `folder` at hand as in this module."""
    head = f"""
        import sys, time
        from pathlib import Path
        from migrator.sandbox import artifacts, cache
        cache.machine.reachable = lambda path: True
        folder = Path({str(folder)!r})
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *arguments],
        env={**os.environ, "MIGRATOR_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_item_is_built_once(folder):
    builds = []
    for _ in range(2):
        cache.fill(
            "item", lambda draft: (builds.append(draft), write_two_files(draft)), say_nothing
        )

    assert len(builds) == 1
    assert sorted(path.name for path in (folder / "item").iterdir()) == ["one", "two"]


def test_a_build_that_fails_leaves_nothing_that_counts(folder):
    def fail(draft):
        write_two_files(draft)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.fill("item", fail, say_nothing)

    assert [path.name for path in folder.iterdir()] == ["item.lock"]
    cache.fill("item", write_two_files, say_nothing)
    assert (folder / "item" / "two").read_text() == "2"


def test_a_build_that_is_killed_leaves_nothing_that_counts(folder):
    code = """
        def build(draft):
            (draft / "half").write_text("x")
            print("half", flush=True)
            time.sleep(60)
        cache.fill("item", build, print)
    """
    with run_python(code, folder) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert not (folder / "item").exists()

    cache.fill("item", write_two_files, say_nothing)

    assert sorted(path.name for path in folder.iterdir()) == ["item", "item.lock"]
    assert sorted(path.name for path in (folder / "item").iterdir()) == ["one", "two"]


def test_two_processes_that_fill_an_empty_cache_download_once(folder):
    code = """
        import hashlib
        def resolve(artifact, scratch):
            with (folder / "calls").open("a") as calls:
                calls.write(artifact.name + "\\n")
            path = scratch / artifact.name / artifact.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            time.sleep(0.3)
            path.write_bytes(artifact.name.encode())
            return path
        artifacts._resolve = resolve
        pins = [
            artifacts.Artifact("g", name, "1", hashlib.sha256(name.encode()).hexdigest())
            for name in ("a", "b", "c")
        ]
        item = cache.fill("jars", lambda draft: artifacts.fetch(pins, draft), lambda line: None)
        print(*sorted(path.name for path in item.iterdir()))
    """
    processes = [run_python(code, folder) for _ in range(2)]
    outputs = [process.communicate(timeout=30)[0] for process in processes]

    assert outputs == ["a-1.jar b-1.jar c-1.jar\n"] * 2
    assert sorted((folder / "calls").read_text().split()) == ["a", "b", "c"]


def test_who_waits_for_another_says_so(folder, monkeypatch):
    monkeypatch.setattr(cache, "_QUIET_WAIT_S", 0.05)
    code = """
        def build(draft):
            print("building", flush=True)
            deadline = time.monotonic() + 10
            while not (folder / "go on").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        cache.fill("item", build, print)
    """
    lines = []

    def say(line):
        lines.append(line)
        (folder / "go on").touch()

    with run_python(code, folder) as process:
        assert process.stdout.readline() == "building\n"
        cache.fill("item", write_two_files, say)

    assert lines == ["Waiting for another process that prepares item ..."]


def test_every_account_can_read_an_item_under_a_strict_umask(folder):
    before = os.umask(0o077)
    try:
        item = cache.fill("item", write_two_files, say_nothing)
    finally:
        os.umask(before)

    assert item.stat().st_mode & 0o777 == 0o755
    assert (item / "one").stat().st_mode & 0o444 == 0o444


def test_a_folder_that_the_servers_cannot_reach_is_refused(folder, monkeypatch):
    monkeypatch.setattr(cache.machine, "reachable", lambda _path: False)

    with pytest.raises(SettingsError, match="closed to the account") as refused:
        cache.cache_dir()

    assert "MIGRATOR_CACHE_DIR" in refused.value.next_step


def test_a_folder_that_cannot_be_made_is_refused(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", str(folder / "file" / "cache"))

    with pytest.raises(SettingsError, match="cannot be made"):
        cache.cache_dir()


def test_a_new_cache_folder_is_open_to_the_servers_account(folder, monkeypatch):
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", str(folder / "new" / "cache"))
    before = os.umask(0o077)
    try:
        made = cache.cache_dir()
    finally:
        os.umask(before)

    if os.geteuid() == 0:
        assert all(each.stat().st_mode & 0o777 == 0o755 for each in (made, made.parent))


def test_the_cache_is_found_without_a_setting(monkeypatch):
    monkeypatch.delenv("MIGRATOR_CACHE_DIR")
    monkeypatch.setattr(cache.os, "geteuid", lambda: 1000)

    assert "migrator" in Path(cache._default()).parts
