"""Run one rule on SQL, and hold what every finding owes its reader."""

from __future__ import annotations

from typing import Any

import pglast

from migrator.migrations.lint.model import Finding, Rule, Surroundings
from migrator.migrations.lint.parse import parse

NOWHERE = Surroundings()


def findings(rule: Rule, sql: str, around: Surroundings = NOWHERE, **script: Any) -> list[Finding]:
    """What the rule says; each finding is the rule's own and its rewrite is SQL."""
    found = list(rule.check(parse(sql, **script), around))
    for each in found:
        assert (each.rule, each.category) == (rule.id, rule.category)
        assert each.message
        assert each.rewrite
        pglast.parse_sql(each.rewrite)
    return found


def lines(rule: Rule, sql: str, around: Surroundings = NOWHERE, **script: Any) -> list[int | None]:
    """The lines that the rule finds fault with."""
    return [each.line for each in findings(rule, sql, around, **script)]
