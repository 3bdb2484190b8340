"""ENABLE or DISABLE TRIGGER."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.walk import actions

AT = enums.AlterTableType
_ENABLES = (
    AT.AT_EnableTrig,
    AT.AT_EnableAlwaysTrig,
    AT.AT_EnableReplicaTrig,
    AT.AT_EnableTrigAll,
    AT.AT_EnableTrigUser,
)
_DISABLES = (AT.AT_DisableTrig, AT.AT_DisableTrigAll, AT.AT_DisableTrigUser)


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for action in actions(script):
        if action.command.subtype in (*_ENABLES, *_DISABLES):
            enables = action.command.subtype in _ENABLES
            done = "enabled" if enables else "disabled"
            skipped = (
                "writes made before were not seen by it"
                if enables
                else "every session's writes go past it, foreign keys too with ALL"
            )
            yield RULE.finding(
                f"a trigger of {action.table} is {done} for everybody (SHARE ROW EXCLUSIVE blocks "
                f"its writers); {skipped}",
                "-- to keep triggers from firing on this transaction's own writes alone:\n"
                "SET LOCAL session_replication_role = replica;",
                statement=action.statement,
                table=action.table,
            )


RULE = Rule("trigger-switched", "lock", "warning", "A trigger enabled or disabled", check)
