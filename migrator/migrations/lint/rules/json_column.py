"""A column of type json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import alters_table

_ADDS = enums.AlterTableType.AT_AddColumn
_RETYPES = enums.AlterTableType.AT_AlterColumnType


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for statement in script.statements:
        node: Any = statement.node
        for column in _json_columns(node):
            table = qualified(node.relation)
            yield RULE.finding(
                f"json has no equality: DISTINCT, GROUP BY and UNION fail over {table} from then "
                "on, and no index helps",
                _as_jsonb(node, column),
                statement=statement,
                table=table,
            )


def _json_columns(node: Any) -> Iterator[Any]:
    elements: Any = ()
    if isinstance(node, ast.CreateStmt):
        elements = node.tableElts or ()
    elif alters_table(node):
        kinds = (_ADDS, _RETYPES)
        elements = [each.def_ for each in node.cmds or () if each.subtype in kinds]
    for each in elements:
        if isinstance(each, ast.ColumnDef) and each.typeName and _is_json(each.typeName):
            yield each


def _is_json(kind: Any) -> bool:
    return bool(kind.names[-1].sval == "json")


def _as_jsonb(node: Any, column: Any) -> str:
    """The statement with jsonb; the tree is put back, as other rules read it, too."""
    names, column.typeName.names = column.typeName.names, (ast.String("jsonb"),)
    try:
        return show(node)
    finally:
        column.typeName.names = names


RULE = Rule("json-column", "style", "warning", "A column of type json", check)
