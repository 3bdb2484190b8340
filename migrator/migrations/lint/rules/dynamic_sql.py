"""DO and CALL: what they run is not known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import ast

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings

_KINDS = {ast.DoStmt: "a DO block", ast.CallStmt: "a procedure", ast.ExecuteStmt: "EXECUTE"}


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for statement in script.statements:
        if (kind := _KINDS.get(type(statement.node))) is not None:
            yield RULE.finding(
                f"not analysable: what {kind} runs is known only when it runs, so no rule has "
                "seen its locks and writes",
                "-- write out what it would run, one statement a line, guarded where it may be "
                "there:\nALTER TABLE IF EXISTS a_table ADD COLUMN IF NOT EXISTS a_column text;",
                statement=statement,
            )


RULE = Rule("dynamic-sql", "lock", "warning", "Dynamic SQL: not analysable", check)
