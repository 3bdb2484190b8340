"""An enum value used in the transaction that adds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import Transaction, key, nodes, transactions

_USES = (
    ast.InsertStmt,
    ast.UpdateStmt,
    ast.DeleteStmt,
    ast.MergeStmt,
    ast.SelectStmt,
    ast.AlterTableStmt,
    ast.CreateStmt,
    ast.CreateTableAsStmt,
    ast.IndexStmt,
    ast.CreateDomainStmt,
)


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for transaction in transactions(script):
        yield from _within(transaction)


def _within(transaction: Transaction) -> Iterator[Finding]:
    made: set[str] = set()
    added: dict[str, Any] = {}
    for statement in transaction:
        node: Any = statement.node
        if isinstance(node, ast.CreateEnumStmt):
            made.add(_name(node))
        elif isinstance(node, ast.AlterEnumStmt) and node.newVal and not node.oldVal:
            if _name(node) not in made:
                added[node.newVal] = node
        elif isinstance(node, _USES):
            for value in added.keys() & set(_strings(node)):
                kind = _name(added[value])
                yield RULE.finding(
                    f"{value!r} of {kind} is used in the transaction that adds it; PostgreSQL "
                    "refuses that (55P04, unsafe use of new value)",
                    "-- in a revision of its own, outside a transaction:\n"
                    f"{show(added[value], skipIfNewValExists=True)}\n"
                    f"-- in the next one:\n{show(node)}",
                    statement=statement,
                )


def _name(node: Any) -> str:
    return key(".".join(each.sval for each in node.typeName))


def _strings(node: Any) -> Iterator[str]:
    for each in nodes(node):
        if isinstance(each, ast.A_Const) and isinstance(each.val, ast.String):
            yield each.val.sval or ""


RULE = Rule(
    "enum-value-used-at-once",
    "transaction",
    "error",
    "An enum value used in the transaction that adds it",
    check,
)
