"""Whether a write says which rows it writes, or how many; pure."""

from __future__ import annotations

from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.walk import is_backfill, nodes

_IN = enums.A_Expr_Kind.AEXPR_IN
_BETWEEN = enums.A_Expr_Kind.AEXPR_BETWEEN
_KEYS = ("id", "uuid", "key", "pk", "ctid", "code", "slug")


def is_bounded(write: Any) -> bool:
    """Whether an INSERT, UPDATE, DELETE or MERGE stays small however large the tables are."""
    if not is_backfill(write):
        return True
    if isinstance(write, ast.InsertStmt):
        return _is_limited(write.selectStmt) or not _reads(write.selectStmt)
    if isinstance(write, ast.MergeStmt):
        return _is_limited(write.sourceRelation) or not _reads(write.sourceRelation)
    if isinstance(write.whereClause, ast.CurrentOfExpr):
        return True
    return _is_limited(write.whereClause) or _names_rows(write.whereClause)


def _reads(query: Any) -> bool:
    return any(isinstance(each, ast.RangeVar) for each in nodes(query))


def _is_limited(node: Any) -> bool:
    return any(isinstance(each, ast.SelectStmt) and each.limitCount for each in nodes(node))


def _names_rows(where: Any) -> bool:
    """`id = 1`, `id IN (1, 2)`, `id BETWEEN 1 AND 1000`, `id >= 1 AND id < 1000`."""
    if isinstance(where, ast.BoolExpr) and where.boolop == enums.BoolExprType.AND_EXPR:
        return any(_names_rows(each) for each in where.args or ()) or _is_range(where)
    if not isinstance(where, ast.A_Expr) or not _is_key(where.lexpr):
        return False
    if where.kind in (_IN, _BETWEEN):
        return True
    return _operator(where) == "=" and isinstance(where.rexpr, (ast.A_Const, ast.ParamRef))


def _is_range(where: Any) -> bool:
    signs: dict[str, set[str]] = {}
    for each in where.args or ():
        if isinstance(each, ast.A_Expr) and _is_key(each.lexpr):
            column: Any = each.lexpr
            signs.setdefault(column.fields[-1].sval, set()).add(_operator(each)[:1])
    return any({"<", ">"} <= found for found in signs.values())


def _is_key(column: Any) -> bool:
    """A column that by its name tells rows apart; what is unique is not known here."""
    if not isinstance(column, ast.ColumnRef):
        return False
    name = getattr(column.fields[-1], "sval", "") if column.fields else ""
    return name in _KEYS or name.endswith(("_id", "_key", "_uuid"))


def _operator(expression: Any) -> str:
    return str(expression.name[-1].sval) if expression.name else ""
