"""Write the safe SQL that a finding shows; pure. It is shown, never run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pglast import ast, enums, parse_sql
from pglast.stream import RawStream, maybe_double_quote_name

from migrator.migrations.lint.walk import nodes


class Raw(str):
    """A piece of SQL that goes into a template as it is."""

    __slots__ = ()


Part = str | ast.RangeVar | Sequence[str]


def fill(template: str, **parts: Part) -> str:
    """Fill names into a template, quoted where they must be; a sequence becomes a list of names."""
    return template.format(**{name: _written(part) for name, part in parts.items()})


def show(node: Any, **changes: Any) -> str:
    """The statement as SQL, with attributes changed; the given node stays as it is."""
    if changes:
        node = copy.copy(node)
        for name, value in changes.items():
            setattr(node, name, value)
    return f"{RawStream()(node)};"


_BATCH = "SELECT FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT 1000))"


def batched(write: Any) -> str:
    """The UPDATE or DELETE for 1000 rows at a time, to be repeated until it finds none.

    Where it would never come to an end so (it joins, counts up, or calls a function), it stays as
    it is, for backfill() to page.
    """
    todo = _todo(write)
    if todo is None:
        return f"-- in keyset pages with backfill(), each page its own transaction:\n{show(write)}"
    where = _parsed(fill(_BATCH, table=write.relation)).whereClause
    where.rexpr.subselect.whereClause = todo
    said = "-- with backfill(), or repeated until no row is left, each its own transaction:"
    return f"{said}\n{show(write, whereClause=where)}"


def _todo(write: Any) -> Any:
    """The condition of the rows that are still to be written, or None."""
    if isinstance(write, ast.DeleteStmt):
        joins = write.usingClause or write.withClause
        return None if joins else write.whereClause or _parsed("SELECT WHERE true").whereClause
    if not isinstance(write, ast.UpdateStmt) or write.fromClause or write.withClause:
        return None
    targets: Any = write.targetList
    names = {each.name for each in targets}
    if any(_is_moving(each.val, names) for each in targets):
        return None
    differing = tuple(_differs(each) for each in targets)
    differs = differing[0] if len(differing) == 1 else ast.BoolExpr(OR, differing)
    return ast.BoolExpr(AND, (write.whereClause, differs)) if write.whereClause else differs


AND, OR = enums.BoolExprType.AND_EXPR, enums.BoolExprType.OR_EXPR
_MOVING = (ast.FuncCall, ast.SQLValueFunction, ast.SubLink, ast.MultiAssignRef, ast.SetToDefault)


def _is_moving(value: Any, names: set[str]) -> bool:
    """Whether writing it once does not make the row equal to it."""
    return any(
        isinstance(each, _MOVING) or (isinstance(each, ast.ColumnRef) and _last(each) in names)
        for each in nodes(value)
    )


def _last(column: Any) -> str:
    return getattr(column.fields[-1], "sval", "*")


def _differs(target: Any) -> Any:
    differs = _parsed("SELECT WHERE a IS DISTINCT FROM b").whereClause
    differs.lexpr.fields = (ast.String(target.name),)
    differs.rexpr = target.val
    return differs


def _parsed(sql: str) -> Any:
    (raw,) = parse_sql(sql)
    return raw.stmt


def name_of(table: str) -> Raw:
    """A table's name as `qualified` gives it, quoted part by part."""
    schema, _, name = table.rpartition(".")
    return Raw(".".join(maybe_double_quote_name(each) for each in (schema, name) if each))


def _written(part: Part) -> str:
    if isinstance(part, Raw):
        return part
    if isinstance(part, str):
        return str(maybe_double_quote_name(part))
    if isinstance(part, ast.RangeVar):
        names = (part.schemaname, part.relname)
        return ".".join(maybe_double_quote_name(each) for each in names if each)
    return ", ".join(maybe_double_quote_name(each) for each in part)
