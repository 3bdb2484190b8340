"""Whether a change of a column's type only widens it, which PostgreSQL does without a rewrite; pure.

Source: PostgreSQL's documentation of ALTER TABLE, Notes, and the typmod support functions
(varchar_support, numeric_support, varbit_support, timestamp_support): they drop the cast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pglast import ast, enums
from pglast.stream import RawStream

from migrator.migrations.lint.model import Script, Statement, Surroundings, qualified
from migrator.migrations.lint.walk import key

Judgement = Literal["free", "rewrites", "unknown"]
_CANONICAL = {
    "varchar": "varchar",
    "character varying": "varchar",
    "bit varying": "varbit",
    "varbit": "varbit",
    "numeric": "numeric",
    "decimal": "numeric",
    "timestamp": "timestamp",
    "timestamp without time zone": "timestamp",
    "timestamptz": "timestamptz",
    "timestamp with time zone": "timestamptz",
    "text": "text",
    "cidr": "cidr",
    "inet": "inet",
}
_WRITTEN = re.compile(r"^(?P<name>[a-z ]+?) *(?:\((?P<args>[\d, ]+)\))?(?P<rest>[a-z ]*)$")
Type = tuple[str, tuple[int, ...]]


def judge(script: Script, statement: Statement, around: Surroundings) -> Judgement:
    """What all the type changes of an ALTER TABLE come to."""
    node: Any = statement.node
    if not isinstance(node, ast.AlterTableStmt):
        return "rewrites"
    table = key(qualified(node.relation))
    judged = {
        _judge_one(_type_before(script, statement, around, table, command.name), command)
        for command in node.cmds or ()
        if command.subtype == enums.AlterTableType.AT_AlterColumnType
    }
    if judged == {"free"}:
        return "free"
    return "rewrites" if "rewrites" in judged or not judged else "unknown"


def _judge_one(old: str | None, command: Any) -> Judgement:
    definition = command.def_
    new = _read(RawStream()(definition.typeName))
    if new is None or not _plain(command):
        return "rewrites"
    if old is None:
        return "unknown" if new[0] != "cidr" else "rewrites"
    before = _read(old)
    return "free" if before is not None and is_widening(before, new) else "rewrites"


def is_widening(old: Type, new: Type) -> bool:
    """Whether every value of the old type is stored the same in the new one."""
    match (old[0], new[0]):
        case ("varchar", "text") | ("cidr", "inet") | ("text", "text"):
            return True
        case ("text", "varchar"):
            return not new[1]
        case ("numeric", "numeric"):
            return not new[1] or (bool(old[1]) and _wider_numeric(old[1], new[1]))
        case ("varchar", "varchar") | ("varbit", "varbit"):
            return not new[1] or (bool(old[1]) and new[1] >= old[1])
        case ("timestamp", "timestamp") | ("timestamptz", "timestamptz"):
            return (*new[1], 6)[0] >= (*old[1], 6)[0]
        case _:
            return False


def _wider_numeric(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    return (*old, 0)[1] == (*new, 0)[1] and new[0] >= old[0]


def _read(written: str) -> Type | None:
    """The type's name and modifiers, or None where no widening of it is known."""
    text = written.lower().removeprefix("pg_catalog.").replace('"', "")
    matched = _WRITTEN.match(text)
    if matched is None:
        return None
    name = _CANONICAL.get(" ".join((matched["name"] + matched["rest"]).split()))
    if name is None:
        return None
    return name, tuple(int(each) for each in re.findall(r"\d+", matched["args"] or ""))


def _plain(command: Any) -> bool:
    """Without USING, or one that casts the column itself to the new type; no other collation."""
    definition: Any = command.def_
    if definition.collClause is not None:
        return False
    using: Any = definition.raw_default
    if using is None:
        return True
    return (
        isinstance(using, ast.TypeCast)
        and isinstance(using.arg, ast.ColumnRef)
        and [getattr(field, "sval", None) for field in using.arg.fields or ()] == [command.name]
        and using.typeName is not None
        and RawStream()(using.typeName) == RawStream()(definition.typeName)
    )


def _type_before(
    script: Script, statement: Statement, around: Surroundings, table: str, column: str
) -> str | None:
    """The column's type before the statement: as the script has left it, else as the database has it."""
    found = around.column_types.get(table, {}).get(column)
    for earlier in script.statements:
        if earlier is statement:
            break
        found = next(_types_given(earlier.node, table, column), found)
    return found


def _types_given(node: Any, table: str, column: str) -> Iterator[str]:
    if not isinstance(node, ast.AlterTableStmt) or key(qualified(node.relation)) != table:
        return
    for command in node.cmds or ():
        match command.subtype:
            case enums.AlterTableType.AT_AddColumn if command.def_.colname == column:
                yield RawStream()(command.def_.typeName)
            case enums.AlterTableType.AT_AlterColumnType if command.name == column:
                yield RawStream()(command.def_.typeName)
            case _:
                pass
