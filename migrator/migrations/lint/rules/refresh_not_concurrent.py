"""REFRESH MATERIALIZED VIEW that blocks its readers."""

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
        if not isinstance(node, ast.RefreshMatViewStmt) or node.concurrent or node.skipData:
            continue
        name = qualified(node.relation)
        if key(name) not in made:
            yield RULE.finding(
                f"nobody can read {name} while it is refreshed (ACCESS EXCLUSIVE)",
                f"-- needs a unique index on {name} over all its rows\n"
                f"{show(node, concurrent=True)}",
                statement=statement,
                table=name,
            )


RULE = Rule(
    "refresh-not-concurrent", "lock", "warning", "A refresh that blocks the view's readers", check
)
