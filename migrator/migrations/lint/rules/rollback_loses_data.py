"""A rollback script that loses data and does not declare it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.parse import NotSQL, parse
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import actions, alters_table, created, key, writes

AT, Object = enums.AlterTableType, enums.ObjectType
DECLARED = re.compile(r"--[ \t]*loses:[ \t]*(\S.*)", re.IGNORECASE)
_HOLDERS = {Object.OBJECT_TABLE, Object.OBJECT_SCHEMA}


@dataclass(frozen=True)
class Loss:
    """What a statement of a rollback script takes away."""

    what: str
    node: Any
    table: str
    column: str | None = None


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    text = script.rollback_script
    if text is None or DECLARED.search(text):
        return
    try:
        undoing = parse(text)
    except NotSQL:
        return  # rollback-script-missing says so
    made = created(script)
    added = {
        (key(action.table), action.command.def_.colname)
        for action in actions(script)
        if action.command.subtype == AT.AT_AddColumn
    }
    for statement in undoing.statements:
        for loss in losses(statement.node):
            own = key(loss.table) in made or (key(loss.table), loss.column) in added
            yield _finding(loss, own=own or not script.analysable)


def losses(node: Any) -> Iterator[Loss]:
    """What a statement loses: tables, columns, rows; pure."""
    if isinstance(node, ast.DropStmt) and node.removeType in _HOLDERS:
        for each in node.objects or ():
            parts: Any = each if isinstance(each, tuple) else (each,)
            name = ".".join(one.sval for one in parts)
            yield Loss(name, node, name)
    elif alters_table(node):
        for command in node.cmds or ():
            if command.subtype == AT.AT_DropColumn:
                table = qualified(node.relation)
                yield Loss(f"{table}.{command.name}", node, table, command.name)
    elif isinstance(node, ast.TruncateStmt):
        for relation in node.relations or ():
            yield Loss(qualified(relation), node, qualified(relation))
    else:
        for write in writes(node):
            if isinstance(write, ast.DeleteStmt):
                yield Loss(f"rows of {qualified(write.relation)}", node, qualified(write.relation))


def _finding(loss: Loss, *, own: bool) -> Finding:
    since = "what was written there since the revision was applied"
    lost = since if own else "what it held before the revision, too"
    return RULE.finding(
        f"the rollback script loses {loss.what}: {lost}; it does not declare that",
        f"-- loses: {loss.what}, {since if own else 'all it holds'}\n{show(loss.node)}",
        table=loss.table,
        severity="notice" if own else None,
    )


RULE = Rule(
    "rollback-loses-data",
    "rollback",
    "warning",
    "A rollback script that loses data and does not declare it",
    check,
)
