"""A statement_timeout that strikes before the lock_timeout can."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.timeouts import NAMES, resets, said, setting


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    given: dict[str, float | None] = {
        "lock_timeout": around.lock_timeout_ms,
        "statement_timeout": around.statement_timeout_ms,
    }
    now = dict(given)
    for statement in script.statements:
        now |= {name: given[name] for name in NAMES if resets(statement.node, name)}
        made = setting(statement.node)
        if made is None or made.name not in NAMES:
            continue
        now[made.name] = made.value_ms
        lock, whole = now["lock_timeout"], now["statement_timeout"]
        if lock and whole and whole <= lock:
            yield RULE.finding(
                f"statement_timeout ({said(whole)}) is not longer than lock_timeout "
                f"({said(lock)}): a wait for a lock ends as 57014 and is not tried again",
                f"SET LOCAL lock_timeout = '{max(1, int(whole / 4))}ms';",
                statement=statement,
            )


RULE = Rule(
    "timeouts-in-wrong-order",
    "timeout",
    "warning",
    "statement_timeout not longer than lock_timeout",
    check,
)
