"""EXCLUDE added to a table that stands."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import fill, name_of, show
from migrator.migrations.lint.walk import actions

_REWRITE = """-- EXCLUDE has no NOT VALID and no USING INDEX: it must be there before the rows
CREATE TABLE {new} (LIKE {table} INCLUDING ALL);"""


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for action in actions(script):
        added = action.command.def_
        if (
            action.command.subtype == enums.AlterTableType.AT_AddConstraint
            and added.contype == enums.ConstrType.CONSTR_EXCLUSION
        ):
            new = f"{action.table}_new"
            there = show(action.statement.node, cmds=(action.command,))
            old = fill("ALTER TABLE {table} ", table=action.relation)
            there = fill("ALTER TABLE {new} ", new=name_of(new)) + there.removeprefix(old)
            yield RULE.finding(
                f"EXCLUDE builds its index over all of {action.table} while nobody can read it "
                "(ACCESS EXCLUSIVE); it can be made neither CONCURRENTLY nor NOT VALID",
                fill(_REWRITE, new=name_of(new), table=action.relation)
                + f"\n{there}\n-- then fill it with backfill() and swap the two by name",
                statement=action.statement,
                table=action.table,
            )


RULE = Rule(
    "exclusion-constraint-added", "lock", "error", "An EXCLUDE constraint added to a table", check
)
