"""A migration that changes or writes the table of a projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.locks import Mode, locks
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.walk import key

AT, Object = enums.AlterTableType, enums.ObjectType

# The swap carries these over to the next build.
_CARRIED = (
    ast.CreateTrigStmt,
    ast.CreatePolicyStmt,
    ast.AlterPolicyStmt,
    ast.RuleStmt,
    ast.CommentStmt,
    ast.CreateStatsStmt,
    ast.CreatePublicationStmt,
    ast.AlterPublicationStmt,
    ast.VacuumStmt,
    ast.LockStmt,
)
_CARRIED_DROPS = (Object.OBJECT_TRIGGER, Object.OBJECT_POLICY, Object.OBJECT_RULE)
_CARRIED_ACTIONS = (
    AT.AT_EnableRowSecurity,
    AT.AT_DisableRowSecurity,
    AT.AT_ForceRowSecurity,
    AT.AT_NoForceRowSecurity,
    AT.AT_EnableTrig,
    AT.AT_DisableTrig,
    AT.AT_ChangeOwner,
    AT.AT_ReplicaIdentity,
    AT.AT_SetRelOptions,
    AT.AT_ResetRelOptions,
)


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    projections = {key(name) for name in around.projections}
    for statement in script.statements:
        if not _is_carried(statement.node):
            for table in _touched(statement.node):
                if key(table) in projections:
                    name = table.rpartition(".")[2]
                    yield RULE.finding(
                        f"{table} is the table of a projection: it is built from the log, and the "
                        "next build would not have this change",
                        "-- change the projection's class and its handlers, then build it anew:\n"
                        f"-- migrator rebuild-projections --projection {name}",
                        statement=statement,
                        table=table,
                    )


def _touched(node: Any) -> Iterator[str]:
    if isinstance(node, ast.CreateStmt):
        yield qualified(node.relation)
    else:
        yield from (lock.table for lock in locks(node) if lock.mode >= Mode.ROW_EXCLUSIVE)


def _is_carried(node: Any) -> bool:
    if isinstance(node, ast.DropStmt):
        return node.removeType in _CARRIED_DROPS
    if isinstance(node, ast.AlterTableStmt):
        return all(each.subtype in _CARRIED_ACTIONS for each in node.cmds or ())
    return isinstance(node, _CARRIED)


RULE = Rule(
    "projection-table-touched", "projection", "error", "A projection's table in a migration", check
)
