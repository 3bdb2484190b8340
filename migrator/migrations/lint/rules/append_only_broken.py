"""A change of an event store that is no append."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import fill, name_of
from migrator.migrations.lint.walk import alters_table, foreign_keys, key, writes

AT, Object = enums.AlterTableType, enums.ObjectType
_UPDATES_ON_CONFLICT = enums.OnConflictAction.ONCONFLICT_UPDATE
_ACTIONS = {
    AT.AT_DropColumn: "drops a column",
    AT.AT_AlterColumnType: "changes a column's type",
    AT.AT_DisableTrig: "disables a trigger that may guard it",
    AT.AT_DisableTrigAll: "disables the triggers that may guard it",
    AT.AT_DisableTrigUser: "disables the triggers that may guard it",
    AT.AT_SetUnLogged: "lets a crash of the server empty it",
}
_BEFORE, _INSERT = 1 << 1, 1 << 2
_UNSAFE_PRIVILEGES = {"update", "delete", "truncate"}
_ERASING = {"c", "n", "d"}
_REWRITE = """-- events stay as they were written. Append an event that corrects; read old shapes
-- with an upcaster; add a column beside the one that is to change:
ALTER TABLE {table} ADD COLUMN IF NOT EXISTS new_column text;"""


def check(script: Script, around: Surroundings) -> Iterator[Finding]:
    stores = {key(name) for name in around.append_only}
    for statement in script.statements:
        for table, done in _breaks(statement.node):
            if key(table) in stores:
                yield RULE.finding(
                    f"{table} is an event store, which only ever grows; this {done}",
                    fill(_REWRITE, table=name_of(table)),
                    statement=statement,
                    table=table,
                )


def _breaks(node: Any) -> Iterator[tuple[str, str]]:
    for write in writes(node):
        yield from _written(write)
    if alters_table(node):
        yield from _altered(node)
    elif isinstance(node, ast.TruncateStmt):
        yield from ((qualified(each), "empties it") for each in node.relations or ())
    elif isinstance(node, ast.DropStmt):
        yield from _dropped(node)
    elif isinstance(node, ast.RenameStmt):
        if node.renameType in (Object.OBJECT_TABLE, Object.OBJECT_COLUMN):
            yield qualified(node.relation), "renames what readers of old events name"
    elif isinstance(node, ast.GrantStmt):
        yield from _granted(node)
    elif _comes_between(node):
        yield qualified(node.relation), "lets something else change or swallow events"


def _comes_between(node: Any) -> bool:
    """A rule, or a trigger that sees an event before it is written."""
    if isinstance(node, ast.CreateTrigStmt):
        return bool((node.timing or 0) & _BEFORE and (node.events or 0) & _INSERT)
    return isinstance(node, ast.RuleStmt)


def _written(write: Any) -> Iterator[tuple[str, str]]:
    table = qualified(write.relation)
    if isinstance(write, ast.UpdateStmt):
        yield table, "changes events"
    elif isinstance(write, ast.DeleteStmt):
        yield table, "deletes events"
    elif isinstance(write, ast.MergeStmt):
        kinds = {each.commandType for each in write.mergeWhenClauses or ()}
        if kinds & {enums.CmdType.CMD_UPDATE, enums.CmdType.CMD_DELETE}:
            yield table, "changes events"
    elif write.onConflictClause and write.onConflictClause.action == _UPDATES_ON_CONFLICT:
        yield table, "changes events on conflict"


def _dropped(node: Any) -> Iterator[tuple[str, str]]:
    for each in node.objects or ():
        if node.removeType == Object.OBJECT_TABLE:
            yield _joined(each), "drops it"
        elif node.removeType == Object.OBJECT_TRIGGER:
            yield _joined(each[:-1]), "drops a trigger that may guard it"


def _joined(names: Any) -> str:
    return ".".join(each.sval for each in names)


def _altered(node: Any) -> Iterator[tuple[str, str]]:
    table = qualified(node.relation)
    for command in node.cmds or ():
        if command.subtype in _ACTIONS:
            yield table, _ACTIONS[command.subtype]
        for each in foreign_keys(command):
            if _ERASING & {each.fk_del_action, each.fk_upd_action}:
                yield table, "lets a change of another table change or delete events"


def _granted(node: Any) -> Iterator[tuple[str, str]]:
    privileges = {each.priv_name for each in node.privileges or ()}
    unsafe = node.privileges is None or privileges & _UNSAFE_PRIVILEGES
    if node.is_grant and node.objtype == Object.OBJECT_TABLE and unsafe:
        for each in node.objects or ():
            if isinstance(each, ast.RangeVar):
                yield qualified(each), "lets a role change or delete events"


RULE = Rule(
    "append-only-broken",
    "projection",
    "error",
    "An event store changed otherwise than by append",
    check,
)
