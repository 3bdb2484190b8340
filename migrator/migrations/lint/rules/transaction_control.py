"""BEGIN and COMMIT where a transaction is given, nested, or never ended."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings
from migrator.migrations.lint.walk import begins, ends

_SPLIT = "-- in a revision of its own, without BEGIN and COMMIT:\n{}"


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    if script.revision is not None:
        for statement in script.statements:
            if begins(statement.node) or ends(statement.node):
                yield _given(script, statement)
    else:
        yield from _of_file(script)


def _given(script: Script, statement: Statement) -> Finding:
    after = [each.text for each in script.statements if each.line > statement.line]
    rest = ";\n".join(text for text in after if not _is_control(text))
    return RULE.finding(
        f"{statement.text} in a revision: each revision is one transaction of the runner's, which "
        "refuses it; what comes after would commit without its stamp",
        _SPLIT.format(f"{rest};" if rest else "SELECT 1;"),
        statement=statement,
    )


def _is_control(text: str) -> bool:
    return text.split(maxsplit=1)[0].upper() in (
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
    )


def _of_file(script: Script) -> Iterator[Finding]:
    """A file that psql runs: with `in_transaction` as one transaction, which is then given."""
    opened: Statement | None = None
    for statement in script.statements:
        within = opened is not None or script.in_transaction
        if begins(statement.node):
            if within:
                yield RULE.finding(
                    "BEGIN within a transaction does nothing but warn, and the next COMMIT ends "
                    "the outer one",
                    "SAVEPOINT before_this;",
                    statement=statement,
                )
            opened = statement
        elif ends(statement.node):
            if not within:
                yield RULE.finding(
                    f"{statement.text} without a transaction: nothing before it can be undone",
                    "BEGIN;\nCOMMIT;",
                    statement=statement,
                )
            elif script.in_transaction:
                yield RULE.finding(
                    f"{statement.text} ends the transaction that this file is run in; what comes "
                    "after it is committed statement by statement",
                    "-- leave it out: who runs the file commits\nSELECT 1;",
                    statement=statement,
                )
            opened = None
    if opened is not None and not script.in_transaction:
        yield RULE.finding(
            "BEGIN without COMMIT: at the end of the file everything is rolled back, without an "
            "error",
            "COMMIT;",
            statement=opened,
        )


RULE = Rule(
    "transaction-control", "transaction", "error", "BEGIN or COMMIT where it does harm", check
)
