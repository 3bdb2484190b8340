"""What a revision means, apart from how it is written: a comment or a licence header changes no hash.

SQL is cut into tokens by PostgreSQL's own scanner and never deparsed: the tokens of a statement are
the same in every version of the parser, its deparsed text is not.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable

from pglast import parser

from migrator.source import source_hash

# Fixed here: whether a text parses as SQL depends on the parser's version, its first word does not.
_COMMANDS = re.compile(
    r"(?:alter|analyze|call|cluster|comment|copy|create|delete|do|drop|execute|grant|import|insert"
    r"|lock|merge|notify|reassign|refresh|reindex|reset|revoke|security|select|set|table|truncate"
    r"|update|vacuum|values|with)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][\w$]*")
_COMMENTS = ("SQL_COMMENT", "C_COMMENT")
_EXPRESSION = "\ue000"  # stands for {...} of an f-string; to the scanner it is a letter


def revision_hash(tree: ast.Module) -> str:
    """SHA-256 of what a revision's file does; SQL in its strings counts by its tokens."""
    return source_hash([tree], read_as=_SqlInStrings())


def sql_hash(statements: Iterable[str]) -> str:
    """SHA-256 of statements in their order, each normalised, with a line feed after each."""
    digest = hashlib.sha256()
    for statement in statements:
        digest.update(f"{normalised(statement)}\n".encode())
    return digest.hexdigest()


def normalised(sql: str) -> str:
    """The tokens of some SQL with one space between them, without comments and final semicolons.

    Words outside quotes are in lower case. What the scanner does not take is returned as it is.
    """
    found = words(sql)
    return sql.strip() if found is None else _spaced(found)


def _spaced(found: list[str]) -> str:
    while found and found[-1] == ";":
        found.pop()
    return " ".join(found)


def words(sql: str) -> list[str] | None:
    """The tokens of some SQL without comments, words in lower case; None where it has no tokens."""
    try:
        tokens = parser.scan(sql)
    except (parser.ParseError, ValueError):
        return None
    texts = [sql[t.start : t.end + 1] for t in tokens if t.name not in _COMMENTS]
    return [text.lower() if _WORD.fullmatch(text) else text for text in texts]


_READ = frozenset((ast.BinOp, ast.Attribute, ast.keyword, ast.Constant, ast.JoinedStr))


class _SqlInStrings:
    """Read a string that is SQL as its tokens; one that is only a part of SQL as it is."""

    def __init__(self) -> None:
        self._parts: set[int] = set()

    def __call__(self, node: ast.AST) -> ast.AST:
        return self._as_tokens(node) if type(node) in _READ else node

    def _as_tokens(self, node: ast.AST) -> ast.AST:
        match node:
            case ast.BinOp(left=left, right=right):
                self._parts |= {id(left), id(right)}
            case ast.Attribute(value=value) | ast.keyword(arg="comment", value=value):
                self._parts.add(id(value))
            case ast.Constant(value=str(text)) if id(node) not in self._parts:
                return node if (read := _read(text)) is None else ast.Constant(read)
            case ast.JoinedStr(values=values) if id(node) not in self._parts:
                return _joined(node, values)
        return node


def _joined(node: ast.JoinedStr, values: list[ast.expr]) -> ast.AST:
    read = _read(
        "".join(
            str(getattr(part, "value", "")) if _is_text(part) else _EXPRESSION for part in values
        )
    )
    if read is None:
        return node
    return ast.Tuple([ast.Constant(read), *(part for part in values if not _is_text(part))])


def _is_text(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant)


def _read(text: str) -> str | None:
    """The text's tokens, or None where it is no whole SQL."""
    if not _COMMANDS.match(text.lstrip()) and "--" not in text and "/*" not in text:
        return None
    found = words(text)
    # A brace outside quotes is a place in a template, where what stands beside it counts.
    if not found or not _COMMANDS.fullmatch(found[0]) or {"{", "}"} & set(found):
        return None
    return _spaced(found)
