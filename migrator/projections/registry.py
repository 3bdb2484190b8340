"""Find the projections that a folder defines."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from migrator.errors import MigratorError, UsageError
from migrator.projections.definition import Definition, Projection
from migrator.projections.definition_hash import definition_hash, definition_parts
from migrator.projections.events import check_upcasters


@dataclass(frozen=True)
class Registered:
    """A projection as the folder defines it now."""

    definition: Definition
    hash: str
    path: Path

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def parts(self) -> dict[str, str]:
        """The hashes of the definition's parts, by name."""
        return definition_parts(self.definition.cls, self.path.parent.parent)


def load(directory: Path) -> dict[str, Registered]:
    """Import every module of the folder, as it is now, and return its projections by name.

    Files may import each other as `projections.orders`, after the folder's own name.

    Raises:
        UsageError: there is no such folder, a file does not import, a definition is wrong, or two
            projections share a table name.
    """
    if not directory.is_dir():
        raise UsageError(
            f"there is no folder {directory}",
            expected="Python files that define projections",
            next_step="create it, or correct [projections] directory in migrator.toml",
        )
    directory = directory.resolve()
    _forget(directory)
    found: dict[str, Registered] = {}
    paths = [path for path in sorted(directory.glob("*.py")) if not path.stem.startswith("_")]
    # All are imported first: a file may hold the upcasters of events that another declares.
    modules = [(_import(path), path) for path in paths]
    for module, path in modules:
        for registered in _projections_of(module, path, directory.parent):
            other = found.setdefault(registered.name, registered)
            if other is not registered:
                raise UsageError(
                    f"two projections share the table {registered.name}: {other.path.name} "
                    f"and {path.name}",
                    next_step="rename one",
                )
    for registered in found.values():
        check_upcasters(registered.definition.event_classes)
    return found


def choose(known: dict[str, Registered], names: list[str] | tuple[str, ...]) -> list[Registered]:
    """The named projections, in the order named, each once.

    Raises:
        UsageError: a name is unknown; the nearest ones are in the message.
    """
    for name in names:
        if name not in known:
            raise UsageError.unknown("projection", name, known, next_step="migrator status")
    return [known[name] for name in dict.fromkeys(names)]


def _projections_of(module: ModuleType, path: Path, root: Path) -> list[Registered]:
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Projection)
        and member.__module__ == module.__name__
        and "__definition__" in vars(member)
    ]
    return [Registered(cls.__definition__, definition_hash(cls, root), path) for cls in classes]


def _import(path: Path) -> ModuleType:
    try:
        return importlib.import_module(f"{path.parent.name}.{path.stem}")
    except MigratorError:
        raise
    except Exception as exc:
        raise UsageError(
            f"{path} does not import: {_where(exc, path)}", next_step="correct the file"
        ) from exc


def _forget(directory: Path) -> None:
    """Let the files be read anew, and let no folder of the same name elsewhere stand before them."""
    importlib.invalidate_caches()
    package, root = directory.name, str(directory.parent)
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        del sys.modules[name]
    sys.path[:] = [root, *(place for place in sys.path if place != root)]


def _where(exc: BaseException, path: Path) -> str:
    if isinstance(exc, SyntaxError):
        return f"line {exc.lineno}: {exc.msg}"
    lines = [f.lineno for f in traceback.extract_tb(exc.__traceback__) if f.filename == str(path)]
    at = f"line {lines[-1]}: " if lines else ""
    return f"{at}{type(exc).__name__}: {exc}"
