"""Statements of a plain SQL file that take a lock before a timeout is set; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.locks import Mode, taken
from migrator.migrations.lint.model import Script, Statement, Surroundings
from migrator.migrations.lint.timeouts import is_managed, resets, setting
from migrator.migrations.lint.walk import created

_QUERIES = (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)


def unguarded(script: Script, around: Surroundings, name: str) -> Iterator[tuple[Statement, str]]:
    """The first statement and its table without that timeout; what is managed has the runner's."""
    if is_managed(script, around):
        return
    made, is_set = created(script), False
    for statement in script.statements:
        found = setting(statement.node)
        if found and found.name == name:
            is_set = found.value_ms != 0
        elif resets(statement.node, name):
            is_set = False
        elif not is_set and (table := _locked(statement.node, made)):
            yield statement, table
            return


def _locked(node: Any, made: frozenset[str]) -> str | None:
    """A table that it locks against others; CONCURRENTLY has no use for a short timeout."""
    if isinstance(node, (*_QUERIES, ast.CommentStmt, ast.VacuumStmt)) or _is_concurrent(node):
        return None
    for lock in taken(node, made):
        if lock.mode >= Mode.SHARE_UPDATE_EXCLUSIVE or isinstance(node, ast.LockStmt):
            return lock.table
    return None


def _is_concurrent(node: Any) -> bool:
    if isinstance(node, ast.ReindexStmt):
        return any(each.defname == "concurrently" for each in node.params or ())
    if isinstance(node, ast.AlterTableStmt):
        detach = enums.AlterTableType.AT_DetachPartition
        commands: Any = node.cmds or ()
        return any(each.subtype == detach and each.def_.concurrent for each in commands)
    return bool(getattr(node, "concurrent", False))
