"""What the Ray executor does before there is a cluster, and what it sends there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from migrator.errors import SettingsError
from migrator.executors import places, ray_worker
from migrator.executors.ray import _stage
from migrator.executors.ray_worker import Inbox, Parcel
from migrator.settings import load
from tests.projects import ORDERS, write


@pytest.mark.parametrize("how", ["flag", "setting"])
def test_without_ray_the_command_says_what_to_install(cli, tmp_path, monkeypatch, how):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ORDERS.format(topic="orders"))
    if how == "setting":
        monkeypatch.setenv("MIGRATOR_PROJECTIONS_EXECUTOR", "ray")
    flags = ("--executor", "ray") if how == "flag" else ()
    result = cli("rebuild-projections", "--all", *flags)
    assert result.exit_code == 2
    assert "error: the executor ray is not installed" in result.stderr
    assert "pip install 'migrator[ray]'" in result.stderr


def test_a_working_dir_of_ones_own_is_told_from_include(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="working_dir is migrator's own"):
        load(overrides={"ray": {"runtime_env": {"working_dir": "."}}})


def test_rays_proxy_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="not behind Ray's proxy"):
        load(overrides={"ray": {"address": "ray://head:10001"}})


def test_nothing_but_what_projections_import_is_sent(tmp_path):
    for name in (
        "projections/orders.py",
        "projections/__pycache__/orders.pyc",
        "projections/.env",
        "app/models.py",
        "money.py",
        "secrets/password",
        "migrator.toml",
    ):
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    staged = tmp_path / "staged"
    staged.mkdir()
    _stage(tmp_path / "project" / "projections", [Path("app"), Path("money.py")], staged)
    sent = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert sent == {"projections/orders.py", "app/models.py", "money.py"}


def test_what_is_to_be_sent_and_is_not_there_is_named(tmp_path):
    (tmp_path / "projections").mkdir()
    (tmp_path / "staged").mkdir()
    with pytest.raises(SettingsError, match="no such file or folder"):
        _stage(tmp_path / "projections", [Path("app")], tmp_path / "staged")


@pytest.mark.parametrize("outside", ["../elsewhere", "/etc"])
def test_what_lies_outside_the_project_is_not_sent(tmp_path, outside):
    (tmp_path / "p" / "projections").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "staged").mkdir()
    with pytest.raises(SettingsError, match="lies outside"):
        _stage(tmp_path / "p" / "projections", [Path(outside)], tmp_path / "staged")


def test_a_parcel_shows_nothing_of_what_it_holds():
    parcel = Parcel(print, "task", {"PGPASSWORD": "s3cret"}, {})
    assert "s3cret" not in repr(parcel)
    assert b"s3cret" not in parcel.packed()


def test_a_worker_connects_as_its_parent_does(monkeypatch):
    monkeypatch.setenv("PGHOST", "of-the-node")
    monkeypatch.setenv("PGSERVICE", "of-the-node")
    monkeypatch.setattr(places, "_places", {})
    ray_worker._become(Parcel(print, None, {"PGHOST": "of-the-parent"}, {}))
    assert os.environ["PGHOST"] == "of-the-parent"
    assert "PGSERVICE" not in os.environ


def test_a_worker_finds_the_parents_folder_where_it_was_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "_places", {})
    theirs = Path("/srv/shop/projections")
    assert places.here(theirs) == theirs
    ray_worker._become(Parcel(print, None, {}, {theirs: "projections"}))
    assert places.here(theirs) == tmp_path / "projections"


def test_the_inbox_gives_each_report_once_and_tells_of_a_silent_parent(monkeypatch):
    now = 0.0
    monkeypatch.setattr(ray_worker.time, "monotonic", lambda: now)
    inbox = Inbox()
    assert inbox.put(1, b"a")
    assert inbox.put(2, None)
    assert inbox.take() == ([b"a"], {1, 2})
    assert inbox.take() == ([], {1, 2})
    now = ray_worker.PARENT_SILENT_S + 1
    assert not inbox.put(1, b"b")
