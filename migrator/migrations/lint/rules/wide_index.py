"""An index of four columns or more that enforces nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import show

WIDE = 4


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for statement in script.statements:
        node: Any = statement.node
        if not isinstance(node, ast.IndexStmt) or node.unique:
            continue
        columns = node.indexParams or ()
        if len(columns) >= WIDE and node.accessMethod == "btree":
            yield RULE.finding(
                f"{len(columns)} columns in one index of {qualified(node.relation)}: queries "
                "seldom use more than the first three, and every write pays for all",
                show(node, indexParams=columns[: WIDE - 1], idxname=None, if_not_exists=False),
                statement=statement,
                table=qualified(node.relation),
            )


RULE = Rule("wide-index", "style", "notice", "An index of four columns or more", check)
