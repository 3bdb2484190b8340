"""The hash of a definition: of its class and of all the user's code that the class names.

Handlers, event classes, their upcasters, columns, indexes, helper functions and constants count,
through any number of the user's own modules; comments, docstrings, formatting, checks and third-party
packages do not.

The parts of a definition are for people: they name what has changed where the hash has.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from migrator.projections import shadow
from migrator.projections.events import EventClass, upcasters_of
from migrator.source import source_hash

Named = dict[str, list[ast.stmt]]
INSTALLED = {"site-packages", "dist-packages"}


def definition_hash(cls: type, root: Path) -> str:
    """Hash `cls` and what it names, as far as it is written under `root`."""
    taken = _closure(cls, root).taken
    return source_hash(node for _, nodes in sorted(taken.items()) for node in nodes)


def definition_parts(cls: type, root: Path) -> dict[str, str]:
    """Hash each part of the definition by its name, such as `handler placed` or `event OrderPlaced`."""
    closure = _closure(cls, root)
    found: dict[str, str] = {}
    for (module, name), nodes in closure.taken.items():
        if (module, name) == (cls.__module__, cls.__name__):
            for node in nodes:
                found |= {part: source_hash(said) for part, said in _class_parts(cls, node)}
        elif nodes:
            found[closure.named(module, name, of=cls.__module__)] = source_hash(nodes)
    ddl = shadow.named_statements(cls.__definition__.table)  # type: ignore[attr-defined]
    return found | {part: hashlib.sha256(text.encode()).hexdigest() for part, text in ddl.items()}


def _closure(cls: type, root: Path) -> _Closure:
    closure = _Closure(root.resolve())
    closure.take(importlib.import_module(cls.__module__), cls.__name__)
    return closure


@dataclass
class _Closure:
    root: Path
    taken: dict[tuple[str, str], list[ast.stmt]] = field(default_factory=dict)
    modules: dict[str, Named] = field(default_factory=dict)
    upcasters: set[tuple[str, str]] = field(default_factory=set)

    def take(self, module: ModuleType, name: str) -> None:
        named = self._named(module)
        if (module.__name__, name) in self.taken or name not in named:
            return
        self.taken[module.__name__, name] = []
        for node in named[name]:
            if isinstance(node, ast.ImportFrom):
                self._follow(module, node, name)
            elif isinstance(node, ast.Import):
                self._take_imported(node)
            else:
                folds = _without_checks(node)
                self.taken[module.__name__, name].append(folds)
                self._take_named(module, folds)
        self._take_upcasters(getattr(module, name, None))

    def _take_named(self, module: ModuleType, node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                self.take(module, part.id)
            elif isinstance(part, ast.AnnAssign):
                for quoted in _quoted(part.annotation):
                    self._take_named(module, quoted)
            elif isinstance(part, ast.Import):
                self._take_imported(part)
            elif isinstance(part, ast.ImportFrom):
                for alias in part.names:
                    self._take_from(module, part, alias.name)

    def _take_upcasters(self, event: object) -> None:
        """They name their event, and it does not name them."""
        if isinstance(event, EventClass):
            for upcaster in upcasters_of(event).values():
                source = importlib.import_module(upcaster.__module__)
                if self._is_ours(source):
                    self.upcasters.add((source.__name__, upcaster.__name__))
                    self.take(source, upcaster.__name__)

    def _follow(self, module: ModuleType, node: ast.ImportFrom, name: str) -> None:
        self._take_from(
            module, node, next(a.name for a in node.names if (a.asname or a.name) == name)
        )

    def _take_from(self, module: ModuleType, node: ast.ImportFrom, name: str) -> None:
        package = "." * node.level + (node.module or "")
        source = importlib.import_module(package, module.__package__)
        value = getattr(source, name, None)
        if isinstance(value, ModuleType):
            self._take_all(value)
        elif self._is_ours(source):
            self.take(source, name)

    def _take_imported(self, node: ast.Import) -> None:
        for alias in node.names:
            if (module := sys.modules.get(alias.name)) is not None:
                self._take_all(module)

    def _take_all(self, module: ModuleType) -> None:
        """A module used as a whole counts as a whole."""
        if self._is_ours(module):
            for each in self._named(module):
                self.take(module, each)

    def named(self, module: str, name: str, *, of: str) -> str:
        """What a taken name is called in a projection of module `of`."""
        value = getattr(sys.modules[module], name, None)
        if isinstance(value, EventClass):
            kind = "event"
        elif (module, name) in self.upcasters:
            kind = "upcaster"
        else:
            kind = _kind(value)
        where = "" if module == of else f" of {module.rpartition('.')[2]}"
        return f"{kind} {name}{where}"

    def _is_ours(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        if file is None or not (path := Path(file).resolve()).is_relative_to(self.root):
            return False
        # A virtual environment may lie in the project's own folder.
        return not INSTALLED & set(path.relative_to(self.root).parts)

    def _named(self, module: ModuleType) -> Named:
        if module.__name__ not in self.modules:
            self.modules[module.__name__] = _top_level(ast.parse(inspect.getsource(module)))
        return self.modules[module.__name__]


def _kind(value: object) -> str:
    if inspect.isfunction(value):
        return "function"
    return "class" if inspect.isclass(value) else "value"


def _class_parts(cls: type, node: ast.stmt) -> Iterator[tuple[str, list[ast.AST]]]:
    """The parts of the projection's own class."""
    assert isinstance(node, ast.ClassDef)
    yield "base classes", [*node.bases, *node.decorator_list]
    for keyword in node.keywords:
        yield f"{keyword.arg}=", [keyword]
    for member in node.body:
        for name in _names(member):
            yield _member(cls, name), [member]


def _member(cls: type, name: str) -> str:
    value = vars(cls).get(name)
    if hasattr(value, "__migrator_on__"):
        return f"handler {name}"
    if inspect.isfunction(value):
        return f"method {name}"
    if name in cls.__definition__.attributes:  # type: ignore[attr-defined]
        return f"column {name}"
    return name


def _quoted(annotation: ast.expr) -> Iterator[ast.AST]:
    """What an annotation says in quotes: `Mapped["Status"]` names Status."""
    for part in ast.walk(annotation):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            with suppress(SyntaxError):
                yield ast.parse(part.value, mode="eval")


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
