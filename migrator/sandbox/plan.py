"""What a keeper is told to start, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import msgspec

from migrator.errors import Busy, CannotConnect, MigratorError, SettingsError, UsageError


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
    kafka: str = ""

    @property
    def names(self) -> list[str]:
        return [name for name in (self.postgres, self.kafka) if name]


class Plan(msgspec.Struct, frozen=True):
    postgres_major: str = ""
    postgres: PostgresPlan | None = None
    kafka: KafkaPlan | None = None
    images: ImagesPlan | None = None
    parent_pid: int | None = None
    """The process whose end ends the servers; none if only `sandbox down` does."""
    standing: str = ""
    """The folder of the lock and the state file of a sandbox that stands by itself."""
    stop_deadline_s: float = 15.0

    @property
    def kind(self) -> str:
        return "docker" if self.images else "embedded"


class Addresses(msgspec.Struct, frozen=True):
    """Where the servers answer; process ids are those of this machine, if they have any here."""

    database_url: str
    bootstrap_servers: str = ""
    postgres_pid: int | None = None
    kafka_pid: int | None = None


class Ready(msgspec.Struct, frozen=True):
    """The servers answer."""

    addresses: Addresses
    plan: Plan
    run_dir: str
    keeper_pid: int

    @property
    def log_dir(self) -> Path:
        return Path(self.run_dir) / "logs"


class Failed(msgspec.Struct, frozen=True):
    """A MigratorError on its way to the parent."""

    code: str
    found: str
    expected: str
    next_step: str
    data: dict[str, Any]

    @classmethod
    def of(cls, error: MigratorError) -> Self:
        return cls(error.code, error.found, error.expected, error.next_step, error.data)

    def error(self) -> MigratorError:
        known = (UsageError, SettingsError, Busy, CannotConnect)
        kind = {each.code: each for each in known}.get(self.code, MigratorError)
        return kind(self.found, expected=self.expected, next_step=self.next_step, **self.data)


class Answer(msgspec.Struct, frozen=True):
    """The one line that a keeper writes: one of the two."""

    ready: Ready | None = None
    failed: Failed | None = None
