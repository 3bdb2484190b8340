"""A foreign key whose columns no index leads with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Statement, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill
from migrator.migrations.lint.walk import alters_table, created, key

Columns = tuple[str, ...]
_INDEXED = (enums.ConstrType.CONSTR_PRIMARY, enums.ConstrType.CONSTR_UNIQUE)


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    indexes, made = set(_indexes(script)), created(script)
    known = {key(table): found for table, found in around.indexes.items()}
    for statement in script.statements:
        node: Any = statement.node
        for columns, constraint in _keys(node):
            table = key(qualified(node.relation))
            led = [each for name, each in indexes if name == table]
            if not _is_led([*led, *known.get(table, ())], columns):
                found = _finding(statement, node.relation, columns, constraint)
                # Its harm comes later, so that a new table is not excused.
                yield replace(found, table=None) if table in made else found


def _is_led(indexes: list[Columns], columns: Columns) -> bool:
    return any(set(each[: len(columns)]) == set(columns) for each in indexes)


def _indexes(script: Script) -> Iterator[tuple[str, Columns]]:
    """What the script itself indexes: by index, by primary key, by unique constraint."""
    for node in _nodes(script):
        if isinstance(node, ast.IndexStmt):
            columns = tuple(each.name or "" for each in node.indexParams or ())
            if node.whereClause is None:
                yield key(qualified(node.relation)), columns
        for column, constraint in _constraints(node):
            if constraint.contype in _INDEXED:
                keys = tuple(each.sval for each in constraint.keys or ())
                yield key(qualified(node.relation)), keys or (column,)


def _nodes(script: Script) -> list[Any]:
    return [statement.node for statement in script.statements]


def _keys(node: Any) -> Iterator[tuple[Columns, Any]]:
    for column, constraint in _constraints(node):
        if constraint.contype == enums.ConstrType.CONSTR_FOREIGN:
            yield tuple(each.sval for each in constraint.fk_attrs or ()) or (column,), constraint


def _constraints(node: Any) -> Iterator[tuple[str, Any]]:
    """Each constraint of CREATE TABLE or ALTER TABLE with its column, where it stands at one."""
    if isinstance(node, ast.CreateStmt):
        elements = [*(node.tableElts or ()), *(node.constraints or ())]
    elif alters_table(node):
        elements = [each.def_ for each in node.cmds or ()]
    else:
        elements = []
    for each in elements:
        if isinstance(each, ast.ColumnDef):
            yield from ((each.colname or "", one) for one in each.constraints or ())
        elif isinstance(each, ast.Constraint):
            yield "", each


def _finding(statement: Statement, child: Any, columns: Columns, constraint: Any) -> Finding:
    table, parent = qualified(child), qualified(constraint.pktable)
    said = ", ".join(columns)
    return RULE.finding(
        f"no index leads with ({said}) of {table}: each DELETE or key change in {parent} "
        f"scans all of {table}, with the row locked",
        "-- in a revision before it, outside a transaction:\n"
        + fill(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} ({columns});",
            name=f"{child.relname}_{'_'.join(columns)}_idx"[:63],
            table=child,
            columns=columns,
        ),
        statement=statement,
        table=table,
    )


RULE = Rule(
    "foreign-key-without-index",
    "lock",
    "warning",
    "A foreign key without an index on its own columns",
    check,
)
