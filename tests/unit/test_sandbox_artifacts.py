"""The pins of the sandbox's downloads, and what happens when a download goes wrong."""

import hashlib

import pytest

from migrator.errors import CannotConnect, MigratorError, UsageError
from migrator.sandbox import artifacts, kafka, machine, parts, postgres

PLATFORMS = ("linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8")
PIN = artifacts.Artifact("org.example", "tool", "1.0", hashlib.sha256(b"good").hexdigest())


def resolve_to(*contents):
    """Stand in for jgo: each call writes the next of `contents`, or raises it."""
    left = list(contents)

    def resolve(artifact, scratch):
        content = left.pop(0)
        path = scratch / "g" / artifact.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Exception):
            path.write_bytes(b"half of")
            raise content
        assert not path.exists(), "a file cut short was left for jgo to find"
        path.write_bytes(content)
        return path

    return resolve


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("major", postgres.MAJORS)
def test_each_platform_has_each_postgresql(platform, major):
    pins = [
        pin
        for pin in artifacts.read_lock("postgres.lock")
        if pin.name.endswith(f"-{platform}") and pin.version.startswith(f"{major}.")
    ]

    assert len(pins) == 1


@pytest.mark.parametrize("lock", ["kafka.lock", "postgres.lock"])
def test_each_pin_has_a_sha256_of_its_own(lock):
    pins = artifacts.read_lock(lock)

    assert all(len(bytes.fromhex(pin.sha256)) == 32 for pin in pins)
    assert len({pin.sha256 for pin in pins}) == len(pins)


def test_the_broker_pinned_is_the_version_that_is_stated():
    versions = {pin.name: pin.version for pin in artifacts.read_lock("kafka.lock")}

    assert versions["kafka-server"] == kafka.VERSION


def test_a_download_lands_in_the_folder_and_leaves_no_scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_resolve", resolve_to(b"good"))

    assert artifacts.fetch([PIN], tmp_path) == [tmp_path / "tool-1.0.jar"]
    assert [path.name for path in tmp_path.iterdir()] == ["tool-1.0.jar"]


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_resolve", resolve_to(b"bad"))

    with pytest.raises(MigratorError, match="not the file that was pinned") as refused:
        artifacts.fetch([PIN], tmp_path)

    assert refused.value.expected == PIN.sha256


def test_a_download_that_is_cut_short_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_resolve", resolve_to(OSError("reset by peer"), b"good"))

    assert artifacts.fetch([PIN], tmp_path)[0].read_bytes() == b"good"


def test_a_registry_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_resolve", resolve_to(*[OSError("no route to host")] * 3))

    with pytest.raises(CannotConnect, match="Maven Central: no route to host") as failed:
        artifacts.fetch([PIN], tmp_path)

    assert "check the network" in failed.value.next_step


def test_without_the_extra_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(artifacts.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(UsageError, match="Python package filelock") as missing:
        parts.make_plan("18", "embedded", print, with_kafka=True)

    assert "pip install '.[sandbox]'" in missing.value.next_step


def test_an_unknown_postgresql_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown PostgreSQL version '14'"):
        parts.make_plan("14", "embedded", print, with_kafka=True)


@pytest.mark.parametrize(
    ("system", "processor", "libc"),
    [
        ("win32", "AMD64", ""),
        ("linux", "riscv64", ""),
        ("linux", "x86_64", "x86_64-alpine-linux-musl"),
    ],
)
def test_a_platform_without_servers_is_refused(monkeypatch, system, processor, libc):
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(machine.platform, "machine", lambda: processor)
    monkeypatch.setattr(machine.sysconfig, "get_config_var", lambda _name: libc)

    with pytest.raises(MigratorError, match="do not run on") as refused:
        machine.platform_name()

    assert "docker" in refused.value.next_step


@pytest.mark.parametrize(
    ("system", "processor", "name"),
    [
        ("linux", "x86_64", "linux-amd64"),
        ("linux", "aarch64", "linux-arm64v8"),
        ("darwin", "x86_64", "darwin-amd64"),
        ("darwin", "arm64", "darwin-arm64v8"),
    ],
)
def test_a_platform_is_named_as_the_archives_are(monkeypatch, system, processor, name):
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(machine.platform, "machine", lambda: processor)
    monkeypatch.setattr(machine.sysconfig, "get_config_var", lambda _name: "")

    assert machine.platform_name() == name
