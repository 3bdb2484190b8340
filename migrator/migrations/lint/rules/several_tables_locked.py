"""Several tables locked in one transaction: each waits while the others are held."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import ast

from migrator.migrations.lint.locks import Lock, taken
from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import Transaction, created, key, transactions

_SEPARABLE = (ast.DropStmt, ast.TruncateStmt, ast.LockStmt)


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for transaction in transactions(script):
        yield from _within(transaction, made)


def _within(transaction: Transaction, made: frozenset[str]) -> Iterator[Finding]:
    held: dict[str, Lock] = {}
    for statement in transaction:
        locked = {
            key(each.table): each
            for each in taken(statement.node, made)
            if each.mode.blocks_writers and each.kind in ("table", "materialized view")
        }
        new = [each for name, each in locked.items() if name not in held]
        before = list(held.values())
        if len(new) > 1 and not before and isinstance(statement.node, _SEPARABLE):
            before, new = new[:1], new[1:]
        if new and before:
            yield _finding(statement, before[0], new[0])
        held |= locked


def _finding(statement: Statement, first: Lock, second: Lock) -> Finding:
    return RULE.finding(
        f"{second.table} is locked ({second.mode}) while {first.table} is held ({first.mode}): "
        "both stay blocked until the transaction ends, and two such transactions can deadlock",
        f"-- in a revision of its own, after the lock on {first.table} is released:\n"
        f"{show(statement.node)}",
        statement=statement,
        table=second.table,
    )


RULE = Rule(
    "several-tables-locked", "lock", "warning", "Several tables locked in one transaction", check
)
