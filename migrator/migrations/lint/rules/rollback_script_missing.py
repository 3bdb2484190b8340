"""A revision without a rollback script that could be run."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations import scripts
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    if script.revision is None or script.irreversible is not None:
        return
    if script.rollback_script is None:
        found = f"revision {script.revision} has no rollback script"
    elif problem := scripts.problem(script.rollback_script):
        found = f"the rollback script of {script.revision} {problem}"
    else:
        return
    yield RULE.finding(
        f"{found}: in an emergency nobody can undo the revision, and `up` refuses it",
        f"-- rollback/{script.revision}.sql: what takes back each statement, the last one first\n"
        "ALTER TABLE a_table DROP COLUMN IF EXISTS the_column_that_upgrade_adds;",
    )


RULE = Rule(
    "rollback-script-missing",
    "rollback",
    "error",
    "A rollback script that is missing, empty or cannot be run",
    check,
)
