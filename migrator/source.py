"""Hash what code does, not how it is written: comments, docstrings and formatting do not count.

The hash is stable over Python versions: it walks the syntax tree itself and leaves out empty fields,
which is where versions differ (`ast.dump` and `ast.unparse` are not stable).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable

ReadAs = Callable[[ast.AST], ast.AST]

_UNSAID = frozenset(("kind", "type_comment", "ctx"))


def source_hash(nodes: Iterable[ast.AST], *, read_as: ReadAs = lambda node: node) -> str:
    """SHA-256 over the meaning of some syntax trees, in their order.

    `read_as` is given every node, outermost first, and returns the one that is hashed in its place.
    """
    digest = hashlib.sha256()
    for node in nodes:
        digest.update(_said(node, read_as).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def module_hash(source: str) -> str:
    """SHA-256 over the meaning of a whole module's source text."""
    return source_hash([ast.parse(source)])


def _said(value: object, read_as: ReadAs) -> str:
    if isinstance(value, ast.AST):
        node = read_as(value)
        fields = []
        for name in node._fields:
            if name in _UNSAID or (part := getattr(node, name, None)) is None or part == []:
                continue
            said = repr(part) if isinstance(part, str) else _said(part, read_as)
            fields.append(f"{name}={said}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(value, list):
        return f"[{','.join(_said(part, read_as) for part in value if not _is_docstring(part))}]"
    return repr(value)


def _is_docstring(node: object) -> bool:
    # A bare string statement has no effect wherever it stands.
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
