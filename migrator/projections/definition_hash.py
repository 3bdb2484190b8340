"""The hash of a definition: of its class and of all the user's code that the class names.

Handlers, event classes, their upcasters, columns, indexes, helper functions and constants count,
through any number of the user's own modules; comments, docstrings, formatting, checks and third-party packages do not.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from migrator.projections.events import EventClass, upcasters_of
from migrator.source import source_hash

Named = dict[str, list[ast.stmt]]


def definition_hash(cls: type, root: Path) -> str:
    """Hash `cls` and what it names, as far as it is written under `root`."""
    closure = _Closure(root.resolve())
    closure.take(importlib.import_module(cls.__module__), cls.__name__)
    return source_hash(node for _, nodes in sorted(closure.taken.items()) for node in nodes)


@dataclass
class _Closure:
    root: Path
    taken: dict[tuple[str, str], list[ast.stmt]] = field(default_factory=dict)
    modules: dict[str, Named] = field(default_factory=dict)

    def take(self, module: ModuleType, name: str) -> None:
        named = self._named(module)
        if (module.__name__, name) in self.taken or name not in named:
            return
        self.taken[module.__name__, name] = []
        for node in named[name]:
            if isinstance(node, ast.ImportFrom):
                self._follow(module, node, name)
            elif isinstance(node, ast.Import):
                self._take_all(name, module)
            else:
                folds = _without_checks(node)
                self.taken[module.__name__, name].append(folds)
                for part in ast.walk(folds):
                    if isinstance(part, ast.Name):
                        self.take(module, part.id)
        self._take_upcasters(getattr(module, name, None))

    def _take_upcasters(self, event: object) -> None:
        """They name their event, and it does not name them."""
        if isinstance(event, EventClass):
            for upcaster in upcasters_of(event).values():
                source = importlib.import_module(upcaster.__module__)
                if self._is_ours(source):
                    self.take(source, upcaster.__name__)

    def _follow(self, module: ModuleType, node: ast.ImportFrom, name: str) -> None:
        original = next(a.name for a in node.names if (a.asname or a.name) == name)
        value = getattr(module, name, None)
        if isinstance(value, ModuleType):
            self._take_all(name, module)
            return
        package = "." * node.level + (node.module or "")
        source = importlib.import_module(package, module.__package__)
        if self._is_ours(source):
            self.take(source, original)

    def _take_all(self, name: str, module: ModuleType) -> None:
        """A module used as a whole counts as a whole."""
        value = getattr(module, name, None)
        if isinstance(value, ModuleType) and self._is_ours(value):
            for each in self._named(value):
                self.take(value, each)

    def _is_ours(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return file is not None and Path(file).resolve().is_relative_to(self.root)

    def _named(self, module: ModuleType) -> Named:
        if module.__name__ not in self.modules:
            self.modules[module.__name__] = _top_level(ast.parse(inspect.getsource(module)))
        return self.modules[module.__name__]


def _without_checks(node: ast.stmt) -> ast.stmt:
    """A check judges rows and makes none: a change of it asks for no rebuild."""
    if not isinstance(node, ast.ClassDef):
        return node
    kept = [part for part in node.body if not _is_check(part)]
    return ast.ClassDef(**{**dict(ast.iter_fields(node)), "body": kept})


def _is_check(part: ast.stmt) -> bool:
    return isinstance(part, ast.FunctionDef) and any(
        isinstance(name, ast.Name | ast.Attribute)
        and (name.id if isinstance(name, ast.Name) else name.attr) == "check"
        for name in part.decorator_list
    )


def _top_level(tree: ast.Module) -> Named:
    """Which top-level statements give each name its meaning."""
    named: Named = {}
    for node in tree.body:
        for name in _names(node):
            named.setdefault(name, []).append(node)
    return named


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return [
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    ]
