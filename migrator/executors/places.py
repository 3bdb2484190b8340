"""Where the parent's folders are in this process: a worker on another machine has them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_places: dict[Path, Path] = {}


def moved(places: Mapping[Path, Path]) -> None:
    """Say where this process has the parent's folders."""
    _places.update(places)


def here(folder: Path) -> Path:
    """The parent's folder as this process has it; itself, where nothing was said."""
    return _places.get(folder, folder)
