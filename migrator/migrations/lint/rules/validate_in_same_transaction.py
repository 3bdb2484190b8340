"""A constraint added NOT VALID and validated in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import fill
from migrator.migrations.lint.walk import actions_together, key

AT = enums.AlterTableType


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for together in actions_together(script):
        added: set[tuple[str, str]] = set()
        for action in together:
            command, table = action.command, key(action.table)
            if command.subtype == AT.AT_AddConstraint and command.def_.skip_validation:
                added.add((table, command.def_.conname))
            elif command.subtype == AT.AT_ValidateConstraint and (table, command.name) in added:
                yield RULE.finding(
                    f"{command.name} is validated in the transaction that adds it: the scan of "
                    f"{action.table} runs under the lock of ADD CONSTRAINT",
                    "-- in a later revision, under SHARE UPDATE EXCLUSIVE alone:\n"
                    + fill(
                        "ALTER TABLE {table} VALIDATE CONSTRAINT {name};",
                        table=action.relation,
                        name=command.name,
                    ),
                    statement=action.statement,
                    table=action.table,
                )


RULE = Rule(
    "validate-in-same-transaction",
    "transaction",
    "error",
    "A constraint added NOT VALID and validated in one transaction",
    check,
)
