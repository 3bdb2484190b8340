"""A plain SQL file that locks a table without a lock_timeout."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.unguarded import unguarded


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    local = "LOCAL " if script.in_transaction else ""
    for statement, table in unguarded(script, around, "lock_timeout"):
        yield RULE.finding(
            f"no lock_timeout before the lock on {table}: while this waits for it, every session "
            "that comes after waits behind it",
            f"SET {local}lock_timeout = '500ms';\n{show(statement.node)}",
            statement=statement,
            table=table,
        )


RULE = Rule("missing-lock-timeout", "timeout", "warning", "A lock without a lock_timeout", check)
