"""What the story tells, one value at a time; who listens renders it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrator.demo.facts import Fact


@dataclass(frozen=True)
class Chapter:
    number: int
    title: str
    text: str


@dataclass(frozen=True)
class Typed:
    """The command that a user would type for what comes next."""

    command: str


@dataclass(frozen=True)
class Line:
    """One plain line of what happened."""

    text: str


@dataclass(frozen=True)
class Change:
    """An edit of a file, as a unified diff."""

    diff: str


@dataclass(frozen=True)
class Facts:
    """What was expected and what SQL found."""

    facts: tuple[Fact, ...]


Tell = Callable[[Chapter | Typed | Line | Change | Facts], None]
