"""A plain SQL file that locks a table without a statement_timeout."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.unguarded import unguarded


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    local = "LOCAL " if script.in_transaction else ""
    for statement, table in unguarded(script, around, "statement_timeout"):
        yield RULE.finding(
            f"no statement_timeout before the lock on {table}: nothing bounds how long it is held",
            f"SET {local}statement_timeout = '5s';\n{show(statement.node)}",
            statement=statement,
            table=table,
        )


RULE = Rule(
    "missing-statement-timeout", "timeout", "warning", "A lock without a statement_timeout", check
)
