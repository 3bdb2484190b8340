"""CREATE TRIGGER on a table that stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import created, key


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        node: Any = statement.node
        if isinstance(node, ast.CreateTrigStmt) and key(qualified(node.relation)) not in made:
            table = qualified(node.relation)
            yield RULE.finding(
                f"CREATE TRIGGER blocks every writer of {table} (SHARE ROW EXCLUSIVE), and from "
                "then on the running release's writes fire it",
                "-- alone in its revision, under a short lock_timeout; the function before it:\n"
                f"SET LOCAL lock_timeout = '500ms';\n{show(node)}",
                statement=statement,
                table=table,
            )


RULE = Rule("trigger-created", "lock", "warning", "A trigger created on a table", check)
