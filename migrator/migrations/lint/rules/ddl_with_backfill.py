"""A change of a table and a backfill in one transaction."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import ast

from migrator.migrations.lint.bounded import is_bounded
from migrator.migrations.lint.locks import Lock, taken
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import batched
from migrator.migrations.lint.walk import Transaction, created, transactions, writes

_NO_DDL = (ast.LockStmt, ast.VacuumStmt, ast.CommentStmt)


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for transaction in transactions(script):
        changed = _changed(transaction, made)
        if changed is not None:
            yield from _backfills(transaction, changed)


def _changed(transaction: Transaction, made: frozenset[str]) -> Lock | None:
    for statement in transaction:
        for lock in taken(statement.node, made):
            if lock.mode.blocks_writers and not isinstance(statement.node, _NO_DDL):
                return lock
    return None


def _backfills(transaction: Transaction, changed: Lock) -> Iterator[Finding]:
    for statement in transaction:
        for write in writes(statement.node):
            if not is_bounded(write):
                yield RULE.finding(
                    f"this writes {qualified(write.relation)} in the transaction that changes "
                    f"{changed.table} ({changed.mode}): the lock is held for as long as it runs",
                    f"-- in a later revision:\n{batched(write)}",
                    statement=statement,
                    table=qualified(write.relation),
                )


RULE = Rule(
    "ddl-with-backfill",
    "transaction",
    "warning",
    "A change of a table and a backfill in one transaction",
    check,
)
