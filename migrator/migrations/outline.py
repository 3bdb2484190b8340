"""The ids of the revisions and what they revise, read from the text of their files alone.

Nothing is imported or executed, so it takes a tenth of the time: most runs of `up` and `status` find
nothing pending and need no more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrator.settings import Settings

_NAMES = ("revision", "down_revision", "depends_on")
_ASSIGNED = re.compile(rf"^({'|'.join(_NAMES)})\b[^=\n]*=[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outline:
    """Every revision of a checkout with what it stands on."""

    directory: Path
    below: dict[str, tuple[str, ...]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.below)

    def __contains__(self, revision: str) -> bool:
        return revision in self.below

    def ancestry(self, *revisions: str) -> frozenset[str]:
        """The revisions and everything they stand on."""
        found: set[str] = set()
        todo = list(revisions)
        while todo:
            found.add(current := todo.pop())
            todo += [parent for parent in self.below[current] if parent not in found]
        return frozenset(found)


def read(settings: Settings) -> Outline | None:
    """Read the outline, or None where only `history.read` can tell: it loads files and explains.

    None for whatever is out of the ordinary: ids that are computed, dependencies, an id that is there
    twice, several heads, a circle.
    """
    below: dict[str, tuple[str, ...]] = {}
    if not settings.migrations_dir.is_dir():
        return None
    try:
        for path in _files(settings):
            declared = _declared(path.read_text(encoding="utf-8"))
            if declared is None or declared[0] in below:
                return None
            below[declared[0]] = declared[1]
    except (OSError, ValueError, SyntaxError):
        return None
    outline = Outline(settings.migrations_dir, below)
    return outline if _is_whole(outline) else None


def _files(settings: Settings) -> Iterator[Path]:
    """The files that Alembic would load."""
    for folder in settings.version_locations:
        found = folder.rglob("*.py") if settings.migrations.recursive else folder.glob("*.py")
        for path in found:
            if not path.name.startswith((".#", "__init__")):
                yield path


def _declared(source: str) -> tuple[str, tuple[str, ...]] | None:
    found = _by_lines(source) or _by_syntax(source)
    revision, revises = found.get("revision"), found.get("down_revision")
    if not isinstance(revision, str) or found.get("depends_on") is not None:
        return None
    if revises is None:
        return (revision, ()) if "down_revision" in found else None
    if isinstance(revises, str):
        return revision, (revises,)
    if isinstance(revises, (tuple, list)) and all(isinstance(each, str) for each in revises):
        return revision, tuple(revises)
    return None


def _by_lines(source: str) -> dict[str, Any] | None:
    """Take what stands in lines of its own; None where a line says less than all, or twice."""
    found: dict[str, Any] = {}
    for name, value in _ASSIGNED.findall(source):
        if name in found:
            return None
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return None
    return found


def _by_syntax(source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _NAMES:
                found[name] = ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if (
                name in _NAMES
            ):
                found[name] = ast.literal_eval(value)
    return found


def _is_whole(outline: Outline) -> bool:
    """Whether every parent is there, and one head stands on everything."""
    parents = {parent for each in outline.below.values() for parent in each}
    heads = outline.below.keys() - parents
    if not outline.below:
        return True
    if not parents <= outline.below.keys() or len(heads) != 1:
        return False
    return _order(outline) == len(outline.below)


def _order(outline: Outline) -> int:
    """How many revisions can be put after all they revise: fewer than all, if there is a circle."""
    waiting = {name: len(set(below)) for name, below in outline.below.items()}
    above: dict[str, list[str]] = {name: [] for name in waiting}
    for name, below in outline.below.items():
        for parent in set(below):
            above[parent].append(name)
    free = [name for name, count in waiting.items() if not count]
    placed = 0
    while free:
        placed += 1
        for name in above[free.pop()]:
            waiting[name] -= 1
            if not waiting[name]:
                free.append(name)
    return placed
