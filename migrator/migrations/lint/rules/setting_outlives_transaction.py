"""SET without LOCAL and without RESET."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.timeouts import resets, setting
from migrator.migrations.lint.walk import transactions


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    inside = {id(each) for group in transactions(script) if len(group) > 1 for each in group}
    for at, statement in enumerate(script.statements):
        made = setting(statement.node)
        if made is None or not isinstance(statement.node, ast.VariableSetStmt):
            continue
        within = script.in_transaction or id(statement) in inside
        rest = script.statements[at + 1 :]
        if made.is_local and not within:
            yield _without_effect(statement)
        elif not made.is_local and within and not any(resets(e.node, made.name) for e in rest):
            yield RULE.finding(
                f"{made.name} stays set for the whole session, also for what comes after this "
                "transaction",
                show(statement.node, is_local=True),
                statement=statement,
            )


def _without_effect(statement: Statement) -> Finding:
    node: Any = statement.node
    return RULE.finding(
        f"SET LOCAL outside a transaction has no effect: {node.name} stays as it was",
        f"{show(node, is_local=False)}\n-- and behind the statements it is for:\n"
        f"RESET {node.name};",
        statement=statement,
        severity="warning",
    )


RULE = Rule(
    "setting-outlives-transaction", "timeout", "notice", "SET without LOCAL or RESET", check
)
