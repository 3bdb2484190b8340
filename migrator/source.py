"""Hash what code does, not how it is written: comments, docstrings and formatting do not count.

The hash is stable over Python versions: it walks the syntax tree itself and leaves out empty fields,
which is where versions differ (`ast.dump` and `ast.unparse` are not stable).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable


def source_hash(nodes: Iterable[ast.AST]) -> str:
    """SHA-256 over the meaning of some syntax trees, in their order."""
    digest = hashlib.sha256()
    for node in nodes:
        digest.update(_said(node).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def module_hash(source: str) -> str:
    """SHA-256 over the meaning of a whole module's source text."""
    return source_hash([ast.parse(source)])


def _said(value: object) -> str:
    if isinstance(value, ast.AST):
        fields = [
            f"{name}={_said(part)}"
            for name, part in ast.iter_fields(value)
            if part not in (None, []) and name not in ("kind", "type_comment", "ctx")
        ]
        return f"{type(value).__name__}({','.join(fields)})"
    if isinstance(value, list):
        return f"[{','.join(_said(part) for part in value if not _is_docstring(part))}]"
    return repr(value)


def _is_docstring(node: object) -> bool:
    # A bare string statement has no effect wherever it stands.
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
