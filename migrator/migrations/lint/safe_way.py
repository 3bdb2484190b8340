"""The safe way for squawk's findings, with the statement's own names; pure. It is shown, never run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import qualified
from migrator.migrations.lint.rewriting import fill, name_of, show

AT, Contype = enums.AlterTableType, enums.ConstrType
_APART = "-- a revision of its own, in autocommit_block():"
_NEXT = "-- the next revision: reads and writes go on meanwhile"


def safe_way(rule: str, node: Any) -> str | None:
    """The rewrite of a statement, or None where it is of a form that has none of its own."""
    parts: Iterator[str] = iter(())
    match rule:
        case "require-concurrent-index-creation" if isinstance(node, ast.IndexStmt):
            named = node.idxname is not None
            parts = iter([_APART, show(node, concurrent=True, if_not_exists=named)])
        case "require-concurrent-index-deletion" if isinstance(node, ast.DropStmt):
            parts = iter([_APART, show(node, concurrent=True, missing_ok=True)])
        case "adding-foreign-key-constraint" | "constraint-missing-not-valid":
            parts = (_not_valid(node, each) for each in _added(node, *_CHECKED))
        case "disallowed-unique-constraint":
            parts = (_by_index(node, each, "UNIQUE") for each in _added(node, *_UNIQUE))
        case "adding-serial-primary-key-field":
            parts = (_by_index(node, each, "PRIMARY KEY") for each in _added(node, *_PRIMARY))
        case "adding-not-nullable-field":
            parts = (_not_null(node, name) for name in _columns(node, AT.AT_SetNotNull))
        case _:
            pass
    return "\n".join(parts) or None


_CHECKED = (Contype.CONSTR_CHECK, Contype.CONSTR_FOREIGN)
_UNIQUE = (Contype.CONSTR_UNIQUE,)
_PRIMARY = (Contype.CONSTR_PRIMARY,)


def _commands(node: Any) -> Iterator[Any]:
    if isinstance(node, ast.AlterTableStmt):
        yield from node.cmds or ()


def _added(node: Any, *kinds: Any) -> Iterator[Any]:
    for command in _commands(node):
        if command.subtype == AT.AT_AddConstraint and command.def_.contype in kinds:
            yield command


def _columns(node: Any, subtype: Any) -> Iterator[str]:
    return (command.name for command in _commands(node) if command.subtype == subtype)


def _table(node: Any) -> Any:
    return name_of(qualified(node.relation))


def _not_valid(node: Any, command: Any) -> str:
    constraint = copy.copy(command.def_)
    constraint.conname = constraint.conname or _default_name(node, constraint)
    constraint.skip_validation, constraint.initially_valid = True, False
    changed = copy.copy(command)
    changed.def_ = constraint
    validate = fill(
        "ALTER TABLE {t} VALIDATE CONSTRAINT {c};", t=_table(node), c=constraint.conname
    )
    return f"{show(node, cmds=(changed,))}\n{_NEXT}:\n{validate}"


def _by_index(node: Any, command: Any, kind: str) -> str:
    constraint = command.def_
    name = constraint.conname or _default_name(node, constraint)
    return fill(
        _APART + "\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {c} ON {t} ({x});\n"
        "-- the next revision; the columns are NOT NULL already where it is the primary key:\n"
        f"ALTER TABLE {{t}} ADD CONSTRAINT {{c}} {kind} USING INDEX {{c}};",
        t=_table(node),
        c=name,
        x=[key.sval for key in constraint.keys or ()],
    )


def _not_null(node: Any, column: str) -> str:
    return fill(
        "ALTER TABLE {t} ADD CONSTRAINT {c} CHECK ({x} IS NOT NULL) NOT VALID;\n"
        f"{_NEXT}; then NOT NULL needs no scan:\n"
        "ALTER TABLE {t} VALIDATE CONSTRAINT {c};\n"
        "ALTER TABLE {t} ALTER COLUMN {x} SET NOT NULL;\n"
        "ALTER TABLE {t} DROP CONSTRAINT {c};",
        t=_table(node),
        c=f"{node.relation.relname}_{column}_not_null",
        x=column,
    )


def _default_name(node: Any, constraint: Any) -> str:
    """The name that PostgreSQL itself would give, or one like it."""
    table = node.relation.relname
    keys = [key.sval for key in constraint.fk_attrs or constraint.keys or ()]
    match constraint.contype:
        case Contype.CONSTR_PRIMARY:
            return f"{table}_pkey"
        case Contype.CONSTR_FOREIGN:
            return "_".join([table, *keys, "fkey"])
        case Contype.CONSTR_UNIQUE:
            return "_".join([table, *keys, "key"])
        case _:
            return f"{table}_check"
