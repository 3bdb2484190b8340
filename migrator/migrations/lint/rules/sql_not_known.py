"""A revision whose SQL is not known before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    if not script.analysable:
        why = f" ({script.why_not})" if script.why_not else ""
        yield RULE.finding(
            f"not analysable: the SQL of this revision is known only when it runs{why}, so no "
            "rule has seen it",
            "-- say in SQL what is read from the database, so that upgrade() renders without one:\n"
            "INSERT INTO a_table (a_column) SELECT a_column FROM another_table LIMIT 1000;",
        )


RULE = Rule("sql-not-known", "lock", "warning", "A revision that is not analysable", check)
