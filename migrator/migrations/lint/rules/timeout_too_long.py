"""A timeout that is off, or longer than what the runner allows."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.locks import taken
from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings
from migrator.migrations.lint.timeouts import NAMES, Setting, said, setting
from migrator.migrations.lint.walk import created

LONGEST_LOCK_TIMEOUT_MS = 10_000
_SAFE_MS = {"lock_timeout": 500, "statement_timeout": 60_000}


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    limits: dict[str, float | None] = {
        "lock_timeout": around.lock_timeout_ms,
        "statement_timeout": around.statement_timeout_ms,
    }
    limits["lock_timeout"] = limits["lock_timeout"] or LONGEST_LOCK_TIMEOUT_MS
    for at, statement in enumerate(script.statements):
        found = setting(statement.node)
        if found and found.name in NAMES and _blocks(script.statements[at:], made):
            yield from _judged(statement, found, limits[found.name])


def _blocks(statements: tuple[Statement, ...], made: frozenset[str]) -> bool:
    return any(lock.mode.blocks_writers for each in statements for lock in taken(each.node, made))


def _judged(statement: Statement, made: Setting, limit: float | None) -> Iterator[Finding]:
    value = made.value_ms
    if value is None or (value and (limit is None or value <= limit)):
        return
    found = "off (0)" if value == 0 else said(value)
    allowed = f"; the longest here is {said(limit)}" if limit else ""
    harm = (
        "while it waits, every session that comes after waits behind it"
        if made.name == "lock_timeout"
        else "the lock is held for as long as the statement runs"
    )
    safe = said(min(limit or 60_000, _SAFE_MS[made.name])).replace(" ", "")
    yield RULE.finding(
        f"{made.name} is {found}{allowed}: {harm}",
        f"SET LOCAL {made.name} = '{safe}';",
        statement=statement,
        severity="error" if value == 0 else None,
    )


RULE = Rule("timeout-too-long", "timeout", "warning", "A timeout that is off or too long", check)
