"""Checkpoints, previews and restores while a part of all calls to Neon fails, against a model.

Each command is repeated until it succeeds, as a person would. What it then says is compared with what
the fake has: the rows of the database, and every single branch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from migrator.deploy import checkpoint, preview
from migrator.errors import Busy, CannotConnect, MigratorError
from migrator.settings import load
from tests.fake_neon import FakeNeon

Result = TypeVar("Result")
DAY = timedelta(days=1)


@dataclass
class Chaos:
    """`checkpoints` and `previews`: the number that was in the database when each was made."""

    neon: FakeNeon
    url: str
    dice: random.Random
    checkpoints: dict[str, int] = field(default_factory=dict)
    previews: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    now: int = 0
    names: int = 0
    failures: list[str] = field(default_factory=list)
    repeats: int = 0

    def run(self, runs: int, rate: float) -> None:
        """Run so many commands, with little patience, and look after each."""
        self.neon.faults.dice = random.Random(self.dice.random())
        self._sql("CREATE TABLE truth (n int)")
        self._sql("INSERT INTO truth VALUES (0)")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("MIGRATOR_NEON_RETRY_S", "0.01")
            environment.setenv("MIGRATOR_NEON_WAIT_S", "0.05")
            self._run(runs, rate)

    def _run(self, runs: int, rate: float) -> None:
        for _ in range(runs):
            self._write()
            actions = [self._checkpoint, self._preview, self._preview_again, self._delete]
            action = self.dice.choice([*actions, self._restore, self._restore])
            self.neon.faults.rate = rate
            try:
                action()
            finally:
                self.neon.faults.rate = 0.0
            self._look()

    def __str__(self) -> str:
        return (
            f"{len(self.neon.requests)} requests, {len(self.neon.faults.met)} of them with a fault, "
            f"{self.names} made, {len(self.kept)} restores, {self.repeats} commands repeated"
        )

    def _write(self) -> None:
        self.now += 1
        self._sql("UPDATE truth SET n = %s", self.now)

    def _checkpoint(self) -> None:
        name = self._name("c")
        made = self._until(lambda: checkpoint.create(load(), name=name, ttl=DAY))
        assert made.state == "ready"
        self.checkpoints[name] = self.now

    def _preview(self) -> None:
        self._made(self._name("p"))

    def _preview_again(self) -> None:
        if self.previews:
            self._made(self.dice.choice(sorted(self.previews)))

    def _made(self, name: str) -> None:
        made = self._until(lambda: preview.create(load(), name=name, ttl=DAY))
        self.previews[name] = self.now
        assert self._read(made.url.get_secret_value()) == self.now

    def _restore(self) -> None:
        if not self.checkpoints:
            return
        name = self.dice.choice(sorted(self.checkpoints))

        def back() -> Any:
            return checkpoint.restore(load(), checkpoint.plan(load(), name), reason="chaos")

        self.kept.append(self._until(back).kept_as)
        self.now = self.checkpoints[name]

    def _delete(self) -> None:
        if self.checkpoints and self.dice.random() < 0.5:
            name = self.dice.choice(sorted(self.checkpoints))
            self._until(lambda: _deleted(name))
            del self.checkpoints[name]
        elif self.previews:
            name = self.dice.choice(sorted(self.previews))
            self._until(lambda: preview.delete(load(), name))
            del self.previews[name]

    def _until(self, does: Callable[[], Result]) -> Result:
        """Repeat it as long as it says that it could not; anything else is a failure."""
        for _ in range(100):
            try:
                return does()
            except (Busy, CannotConnect) as exc:
                self.repeats += 1
                self.failures.append(exc.found)
        raise AssertionError("it never succeeds: " + self.failures[-1])

    def _look(self) -> None:
        """No orphan branch, none that is lost, and no wrong state."""
        expected = {"main", *self.kept}
        expected |= {f"checkpoint/{name}" for name in self.checkpoints}
        expected |= {f"preview/{name}" for name in self.previews}
        assert list(self.neon.project.names()) == sorted(expected)
        assert self._read(self.url) == self.now
        # A restore brings the rows of those back that were deleted since; they are shown as gone.
        found = [c for c in checkpoint.every(load()) if c.state != "gone"]
        assert {c.name for c in found} == set(self.checkpoints)
        assert all(c.state.startswith("ready") for c in found)
        for name, number in [*self.previews.items()][-1:]:
            branch = self.neon.project.named(f"preview/{name}")
            assert self._read(self.neon.project.url(branch)) == number

    def _name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def _sql(self, query: str, *parameters: Any) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(query, parameters)  # type: ignore[arg-type]

    def _read(self, url: str) -> int:
        with psycopg.connect(url) as conn:
            row = conn.execute("SELECT n FROM truth").fetchone()
        assert row is not None
        number: int = row[0]
        return number


def _deleted(name: str) -> None:
    """A delete that was interrupted may have been done."""
    try:
        checkpoint.delete(load(), [name])
    except MigratorError as exc:
        if exc.code != "usage":
            raise
