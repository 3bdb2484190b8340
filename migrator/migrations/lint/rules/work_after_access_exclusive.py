"""Work that takes time while a table is held in ACCESS EXCLUSIVE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.bounded import is_bounded
from migrator.migrations.lint.locks import Lock, Mode, taken
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import (
    Transaction,
    alters_table,
    created,
    key,
    nodes,
    transactions,
    writes,
)

_WORK = (
    ast.CopyStmt,
    ast.CreateTableAsStmt,
    ast.VacuumStmt,
    ast.RefreshMatViewStmt,
    ast.ReindexStmt,
    ast.DoStmt,
    ast.CallStmt,
)
_SCANS = {
    enums.AlterTableType.AT_ValidateConstraint,
    enums.AlterTableType.AT_AlterColumnType,
    enums.AlterTableType.AT_SetNotNull,
}


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for transaction in transactions(script):
        yield from _within(transaction, made)


def _within(transaction: Transaction, made: frozenset[str]) -> Iterator[Finding]:
    held: Lock | None = None
    for statement in transaction:
        if held and _is_work(statement.node, made):
            yield RULE.finding(
                f"this runs while {held.table} is held in ACCESS EXCLUSIVE: "
                "nobody can read it until the transaction ends",
                f"-- in a revision of its own, after the lock on {held.table} is released:\n"
                f"{show(statement.node)}",
                statement=statement,
                table=held.table,
            )
        strongest = max(taken(statement.node, made), key=lambda lock: lock.mode, default=None)
        if held is None and strongest and strongest.mode == Mode.ACCESS_EXCLUSIVE:
            held = strongest


def _is_work(node: Any, made: frozenset[str]) -> bool:
    if isinstance(node, ast.IndexStmt):
        return key(qualified(node.relation)) not in made
    if alters_table(node) and key(qualified(node.relation)) not in made:
        return any(command.subtype in _SCANS for command in node.cmds or ())
    if isinstance(node, ast.SelectStmt):
        reads = any(isinstance(each, (ast.RangeVar, ast.FuncCall)) for each in nodes(node))
        return reads and not any(True for _ in writes(node))
    if any(is_bounded(write) for write in writes(node)):
        return True  # ddl-with-backfill has the others
    return isinstance(node, _WORK)


RULE = Rule(
    "work-after-access-exclusive",
    "lock",
    "warning",
    "Further work while a table is held in ACCESS EXCLUSIVE",
    check,
)
