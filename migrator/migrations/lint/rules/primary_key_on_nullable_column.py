"""PRIMARY KEY USING INDEX over columns that may hold NULL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill
from migrator.migrations.lint.walk import Action, actions, key

AT = enums.AlterTableType
_REWRITE = """-- before it, each in a revision of its own:
ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID;
ALTER TABLE {table} VALIDATE CONSTRAINT {check};
-- then: the validated CHECK spares the scan
ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL;
ALTER TABLE {table} DROP CONSTRAINT {check};
ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {index};"""


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    known = {key(table): columns for table, columns in around.not_null.items()}
    filled: set[tuple[str, str]] = set()
    for action in actions(script):
        table, command = key(action.table), action.command
        if command.subtype == AT.AT_SetNotNull:
            filled.add((table, command.name))
        elif _uses_index(command):
            columns = _columns(script, command.def_.indexname)
            open_ = [
                each
                for each in columns
                if (table, each) not in filled and each not in known.get(table, ())
            ]
            if open_ or not columns:
                yield _finding(action, open_, is_known=table in known)


def _uses_index(command: Any) -> bool:
    added = command.def_
    return (
        command.subtype == AT.AT_AddConstraint
        and added.contype == enums.ConstrType.CONSTR_PRIMARY
        and added.indexname is not None
    )


def _columns(script: Script, index: str) -> list[str]:
    """The index's columns, where the script makes it."""
    return [
        each.name
        for statement in script.statements
        if isinstance(statement.node, ast.IndexStmt) and statement.node.idxname == index
        for each in statement.node.indexParams or ()
    ]


def _finding(action: Action, columns: list[str], *, is_known: bool) -> Finding:
    added = action.command.def_
    column = columns[0] if columns else "id"
    said = f"{', '.join(columns)} may hold NULL" if columns else "if its columns may hold NULL"
    rewrite = fill(
        _REWRITE,
        table=action.relation,
        column=column,
        check=f"{action.relation.relname}_{column}_not_null",
        name=added.conname or added.indexname,
        index=added.indexname,
    )
    return RULE.finding(
        f"{said}: the primary key then scans all of {qualified(action.relation)} for NULL "
        "under ACCESS EXCLUSIVE",
        rewrite,
        statement=action.statement,
        table=action.table,
        severity="warning" if is_known and columns else "notice",
    )


RULE = Rule(
    "primary-key-on-nullable-column",
    "lock",
    "warning",
    "A primary key from an index whose columns may hold NULL",
    check,
)
