"""Several foreign keys added in one transaction."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import Raw, fill, show
from migrator.migrations.lint.walk import actions_together, foreign_keys, key


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for together in actions_together(script):
        tables: set[str] = set()
        for action in together:
            for constraint in foreign_keys(action.command):
                tables.add(key(qualified(constraint.pktable)))
                tables.add(key(action.table))
                if len(tables) > 2:
                    rewrite = fill(
                        "-- in a revision of its own:\n{statement}",
                        statement=Raw(show(action.statement.node, cmds=(action.command,))),
                    )
                    yield RULE.finding(
                        f"one more foreign key in this transaction: it holds {len(tables)} tables "
                        "in SHARE ROW EXCLUSIVE together, and blocks the writers of all",
                        rewrite,
                        statement=action.statement,
                        table=action.table,
                    )


RULE = Rule(
    "several-foreign-keys", "lock", "warning", "Several foreign keys in one transaction", check
)
