"""TRUNCATE of a table that stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill
from migrator.migrations.lint.walk import created, key

_REWRITE = """-- with backfill(), or repeated until no row is left:
DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT 1000));"""


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        node: Any = statement.node
        if not isinstance(node, ast.TruncateStmt):
            continue
        for relation in node.relations or ():
            table = qualified(relation)
            if key(table) not in made:
                also = ", and of every table that refers to it" if node.behavior else ""
                yield RULE.finding(
                    f"TRUNCATE takes every row of {table}{also} at once, also those that the "
                    "running release needs, under ACCESS EXCLUSIVE",
                    fill(_REWRITE, table=relation),
                    statement=statement,
                    table=table,
                )


RULE = Rule("table-truncated", "data", "warning", "A table truncated", check)
