"""What a rollback script may hold, and how it is run; pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pglast
from pglast import ast, enums, parser

AUTOCOMMIT = "-- migrator: autocommit"
_SAVEPOINTS = {
    enums.TransactionStmtKind.TRANS_STMT_SAVEPOINT,
    enums.TransactionStmtKind.TRANS_STMT_RELEASE,
    enums.TransactionStmtKind.TRANS_STMT_ROLLBACK_TO,
}
_MAY_BE_CONTROL = re.compile(r"\b(begin|start|commit|end|rollback|abort|prepare)\b", re.IGNORECASE)
REPEATABLE = (
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS, DROP INDEX CONCURRENTLY IF EXISTS, "
    "REINDEX INDEX or TABLE CONCURRENTLY, ALTER TYPE ... ADD VALUE IF NOT EXISTS, or VACUUM: "
    "repeated after an interruption, "
    "they do no harm"
)


def script_hash(script: str) -> str:
    """SHA-256 of the script's bytes, as the ledger keeps it beside the script."""
    return hashlib.sha256(script.encode()).hexdigest()


def is_autocommit(script: str) -> bool:
    """Whether the script asks, in its first line, to be run outside a transaction."""
    return script.lstrip().partition("\n")[0].strip() == AUTOCOMMIT


def parsed(sql: str) -> list[Any]:
    """The statements' syntax trees; comments alone are an empty list.

    Raises:
        ValueError: it is no SQL that PostgreSQL would take, with its words for why.
    """
    try:
        return [raw.stmt for raw in pglast.parse_sql(sql)]
    except parser.ParseError as exc:
        raise ValueError(_placed(exc, sql)) from None


def split(sql: str) -> list[str]:
    """The statements' texts, one by one; the whole where this parser is older than the SQL."""
    try:
        return [text for text in pglast.split(sql) if text.strip()]
    except parser.ParseError:
        return [sql]


def first_line(sql: str) -> str:
    """The first line of a statement that says something, for messages."""
    lines = (line.strip() for line in sql.splitlines())
    return next((line for line in lines if line and not line.startswith("--")), sql.strip())


def controls_transaction(sql: str) -> bool:
    """Whether it begins, commits or rolls back a transaction; savepoints are free."""
    if not _MAY_BE_CONTROL.search(sql):
        return False
    try:
        statements = parsed(sql)
    except ValueError:
        return False
    return any(_is_control(statement) for statement in statements)


def is_repeatable(statement: ast.Node) -> bool:
    """Whether a statement outside a transaction can be run again after an interruption."""
    match statement:
        case ast.IndexStmt():
            return bool(statement.concurrent and statement.if_not_exists)
        case ast.DropStmt():
            of_index = statement.removeType == enums.ObjectType.OBJECT_INDEX
            return bool(of_index and statement.concurrent and statement.missing_ok)
        case ast.ReindexStmt():
            return is_concurrent_reindex(statement)
        case ast.AlterEnumStmt():
            return bool(statement.skipIfNewValExists)
        case _:
            return isinstance(statement, ast.VacuumStmt)


def is_concurrent_reindex(statement: ast.Node) -> bool:
    """Whether it is REINDEX INDEX or TABLE CONCURRENTLY, of one name."""
    if not isinstance(statement, ast.ReindexStmt) or statement.relation is None:
        return False
    return any(option.defname == "concurrently" for option in statement.params or ())


def detached(statement: ast.Node) -> tuple[ast.RangeVar, ast.RangeVar] | None:
    """The table and the partition that DETACH PARTITION ... CONCURRENTLY takes from it; else None."""
    if not isinstance(statement, ast.AlterTableStmt):
        return None
    command, *_ = statement.cmds or ()
    if command.subtype != enums.AlterTableType.AT_DetachPartition or not command.def_.concurrent:
        return None
    assert statement.relation is not None
    return statement.relation, command.def_.name


def problem(script: str) -> str | None:
    """Why a rollback script cannot be kept for an emergency, or None."""
    try:
        statements = parsed(script)
    except ValueError as exc:
        return f"does not parse: {exc}"
    if not statements:
        return "holds no statement yet"
    if any(_is_control(statement) for statement in statements):
        return "holds BEGIN, COMMIT or ROLLBACK; migrator runs it in a transaction of its own"
    if is_autocommit(script):
        return _autocommit_problem(statements)
    if any(getattr(statement, "concurrent", False) for statement in statements):
        return f"holds CONCURRENTLY; its first line must be {AUTOCOMMIT}"
    return None


def _autocommit_problem(statements: list[Any]) -> str | None:
    if len(statements) != 1:
        return f"holds {len(statements)} statements; outside a transaction it must be exactly one"
    if not is_repeatable(statements[0]):
        return f"cannot be repeated after an interruption; outside a transaction: {REPEATABLE}"
    return None


def _is_control(statement: Any) -> bool:
    return isinstance(statement, ast.TransactionStmt) and statement.kind not in _SAVEPOINTS


def _placed(exc: parser.ParseError, sql: str) -> str:
    said, index = exc.args
    return said if index is None else f"{said} in line {sql.count(chr(10), 0, index) + 1}"
