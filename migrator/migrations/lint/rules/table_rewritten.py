"""A whole table copied under ACCESS EXCLUSIVE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.locks import is_vacuum_full
from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill, name_of
from migrator.migrations.lint.walk import actions, created, key

AT = enums.AlterTableType
_ACTIONS = {
    AT.AT_SetLogged: "SET LOGGED",
    AT.AT_SetUnLogged: "SET UNLOGGED",
    AT.AT_SetTableSpace: "SET TABLESPACE",
    AT.AT_SetAccessMethod: "SET ACCESS METHOD",
}
_PLAIN = "-- frees the space for this table's own use, while readers and writers go on:\n"
_COPY = (
    "-- a new table beside it, filled in pages with backfill(), then swapped by name:\n"
    "CREATE TABLE {new} (LIKE {table} INCLUDING ALL);"
)


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    for statement in script.statements:
        for command, table in _commands(statement.node):
            if key(table) not in made:
                rewrite = _PLAIN + fill("VACUUM (ANALYZE) {table};", table=name_of(table))
                yield _finding(statement, command, table, rewrite)
    for action in actions(script):
        if (said := _ACTIONS.get(action.command.subtype)) is not None:
            new = name_of(f"{action.table}_new")
            rewrite = fill(_COPY, new=new, table=action.relation)
            yield _finding(action.statement, said, action.table, rewrite)


def _commands(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ClusterStmt) and node.relation:
        yield "CLUSTER", qualified(node.relation)
    elif isinstance(node, ast.VacuumStmt) and is_vacuum_full(node):
        for each in node.rels or ():
            yield "VACUUM FULL", qualified(each.relation)


def _finding(statement: Statement, said: str, table: str, rewrite: str) -> Finding:
    return RULE.finding(
        f"{said} copies all of {table} while nobody can read it (ACCESS EXCLUSIVE)",
        rewrite,
        statement=statement,
        table=table,
    )


RULE = Rule(
    "table-rewritten", "lock", "error", "A whole table copied under ACCESS EXCLUSIVE", check
)
