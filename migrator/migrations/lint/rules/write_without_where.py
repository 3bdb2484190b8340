"""UPDATE or DELETE without WHERE."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import batched
from migrator.migrations.lint.walk import created, key, writes


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        for write in writes(statement.node):
            table = qualified(write.relation)
            joins = getattr(write, "fromClause", None) or getattr(write, "usingClause", None)
            if (
                isinstance(write, (ast.UpdateStmt, ast.DeleteStmt))
                and write.whereClause is None
                and not joins
                and key(table) not in made
            ):
                verb = "UPDATE" if isinstance(write, ast.UpdateStmt) else "DELETE"
                yield RULE.finding(
                    f"{verb} without WHERE writes every row of {table}; each row stays locked "
                    "until the transaction ends, and leaves a dead one behind",
                    batched(write),
                    statement=statement,
                    table=table,
                )


RULE = Rule("write-without-where", "data", "error", "UPDATE or DELETE without WHERE", check)
