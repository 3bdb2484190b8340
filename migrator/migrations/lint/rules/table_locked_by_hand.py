"""LOCK TABLE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.locks import Mode, taken
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import created


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        node: Any = statement.node
        if not isinstance(node, ast.LockStmt):
            continue
        for lock in taken(node, made):
            if lock.mode.blocks_writers:
                whom = "readers and writers" if lock.mode.blocks_readers else "writers"
                yield RULE.finding(
                    f"LOCK TABLE blocks the {whom} of {lock.table} until the transaction ends "
                    f"({lock.mode}), and each statement takes the lock it needs by itself",
                    "-- leave it out; where two writers must not overlap, keep out writers of the "
                    f"same kind alone:\n{show(node, mode=int(Mode.SHARE_UPDATE_EXCLUSIVE))}",
                    statement=statement,
                    table=lock.table,
                )


RULE = Rule("table-locked-by-hand", "lock", "warning", "LOCK TABLE", check)
