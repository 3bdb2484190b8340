"""What a keeper is told to start, and what it answers."""

from __future__ import annotations

from typing import Any

import msgspec


class PostgresPlan(msgspec.Struct, frozen=True):
    home: str


class KafkaPlan(msgspec.Struct, frozen=True):
    java: str
    jars: str
    aot_cache: str = ""
    """A file to take loaded classes from; none if empty."""
    aot_output: str = ""
    """A file to write them to when the broker stops."""


class ImagesPlan(msgspec.Struct, frozen=True):
    """Images for Docker, in the place of programs of our own."""

    postgres: str
    kafka: str | None


class Plan(msgspec.Struct, frozen=True):
    run_dir: str
    postgres: PostgresPlan | None = None
    kafka: KafkaPlan | None = None
    images: ImagesPlan | None = None
    parent_pid: int | None = None
    """The process whose end ends the servers; none if only `sandbox down` does."""
    standing: str | None = None
    """The folder of the lock and the state file of a sandbox that stands by itself."""
    postgres_major: str = ""
    kind: str = "embedded"
    stop_deadline_s: float = 15.0


class Ready(msgspec.Struct, frozen=True):
    """The servers answer at these addresses."""

    database_url: str
    bootstrap_servers: str
    postgres_pid: int | None
    kafka_pid: int | None
    keeper_pid: int
    log_dir: str
    postgres_major: str
    kind: str


class Failed(msgspec.Struct, frozen=True):
    """A MigratorError on its way to the parent."""

    found: str
    expected: str
    next_step: str
    data: dict[str, Any]
    code: str = "failed"


class Answer(msgspec.Struct, frozen=True):
    """The one line that a keeper writes."""

    ready: Ready | None = None
    failed: Failed | None = None
