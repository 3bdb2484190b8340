"""A bulk write whose number of rows nothing bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.bounded import is_bounded
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import batched
from migrator.migrations.lint.walk import created, key, writes


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        for write in writes(statement.node):
            table = qualified(write.relation)
            if key(table) in made or is_bounded(write) or _is_of_every_row(write):
                continue
            yield RULE.finding(
                f"nothing bounds how many rows of {table} this writes in one transaction: "
                "each stays locked until its end, and replicas fall behind",
                batched(write),
                statement=statement,
                table=table,
            )


def _is_of_every_row(write: Any) -> bool:
    """UPDATE or DELETE without WHERE: write-without-where speaks of those."""
    joins = getattr(write, "fromClause", None) or getattr(write, "usingClause", None)
    kinds = (ast.UpdateStmt, ast.DeleteStmt)
    return isinstance(write, kinds) and write.whereClause is None and not joins


RULE = Rule("unbounded-write", "data", "warning", "A bulk write that nothing bounds", check)
