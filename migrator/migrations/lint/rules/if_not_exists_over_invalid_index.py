"""CREATE INDEX CONCURRENTLY IF NOT EXISTS, which passes over an INVALID index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill, name_of, show
from migrator.migrations.lint.walk import key


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    invalid, dropped = {key(each) for each in around.invalid_indexes}, set()
    for statement in script.statements:
        node: Any = statement.node
        if _drops_index(node):
            dropped |= {each[-1].sval for each in node.objects}
        if not isinstance(node, ast.IndexStmt) or not (node.concurrent and node.if_not_exists):
            continue
        schema = qualified(node.relation).rpartition(".")[0]
        index = f"{schema}.{node.idxname}" if schema else str(node.idxname)
        lies = key(index) in invalid
        if node.idxname in dropped or (script.revision is not None and not lies):
            continue  # `up` itself drops an INVALID index of that name, and verifies the new one
        drop = fill("DROP INDEX CONCURRENTLY IF EXISTS {index};", index=name_of(index))
        yield RULE.finding(
            f"index {index} is INVALID in the database: {_outcome(script)}"
            if lies
            else f"where an interrupted build left {index} INVALID, this passes over it and says "
            "that all is done",
            f"{drop}\n{show(node)}",
            statement=statement,
            table=qualified(node.relation),
            severity=_severity(script, lies=lies),
        )


def _drops_index(node: Any) -> bool:
    return isinstance(node, ast.DropStmt) and node.removeType == enums.ObjectType.OBJECT_INDEX


def _outcome(script: Script) -> str:
    if script.revision is not None:
        return "`up` will drop it and build it anew"
    return "this passes over it, and no query ever uses it"


def _severity(script: Script, *, lies: bool) -> Any:
    if script.revision is not None:
        return "notice"
    return "error" if lies else "warning"


RULE = Rule(
    "if-not-exists-over-invalid-index",
    "lock",
    "warning",
    "IF NOT EXISTS that passes over an INVALID index",
    check,
)
