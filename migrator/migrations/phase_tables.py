"""Which ALTER TABLE commands, constraints and indexes break a running release. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType as At
from pglast.enums import ConstrType, ObjectType

from migrator.migrations.created import Column, Created, column
from migrator.migrations.hazards import NOT_PROVABLE
from migrator.migrations.lint import walk
from migrator.migrations.lint.model import qualified
from migrator.migrations.names import name

# (id of the hazard, what it is about)
Hit = tuple[str, str]

_SAFE = {
    At.AT_SetStatistics,
    At.AT_SetOptions,
    At.AT_ResetOptions,
    At.AT_SetStorage,
    At.AT_SetCompression,
    At.AT_ValidateConstraint,
    At.AT_ClusterOn,
    At.AT_DropCluster,
    At.AT_SetLogged,
    At.AT_SetAccessMethod,
    At.AT_SetTableSpace,
}
_BY_TABLE = {
    At.AT_ChangeOwner: "change-owner",
    At.AT_SetUnLogged: "set-unlogged",
    At.AT_EnableTrig: "switch-trigger",
    At.AT_EnableAlwaysTrig: "switch-trigger",
    At.AT_EnableReplicaTrig: "switch-trigger",
    At.AT_DisableTrig: "switch-trigger",
    At.AT_EnableTrigAll: "switch-trigger",
    At.AT_DisableTrigAll: "switch-trigger",
    At.AT_EnableTrigUser: "switch-trigger",
    At.AT_DisableTrigUser: "switch-trigger",
    At.AT_EnableRule: "change-rule",
    At.AT_EnableAlwaysRule: "change-rule",
    At.AT_EnableReplicaRule: "change-rule",
    At.AT_DisableRule: "change-rule",
    At.AT_AddInherit: "attach-partition",
    At.AT_DropInherit: "detach-partition",
    At.AT_DetachPartition: "detach-partition",
    At.AT_DetachPartitionFinalize: "detach-partition",
    At.AT_ReplicaIdentity: "replica-identity",
    At.AT_EnableRowSecurity: "row-security",
    At.AT_DisableRowSecurity: "row-security",
    At.AT_ForceRowSecurity: "row-security",
    At.AT_NoForceRowSecurity: "row-security",
}
_BY_COLUMN = {
    At.AT_DropColumn: "drop-column",
    At.AT_AlterColumnType: "retype-column",
    At.AT_SetExpression: "change-default",
    At.AT_DropExpression: "drop-default",
    At.AT_DropIdentity: "drop-default",
    At.AT_DropNotNull: "drop-not-null",
}
_ALWAYS = ord("a")


def alter_table(node: Any, created: Created) -> Iterator[Hit]:
    """Judge each command, with what the commands before it have created."""
    subject = qualified(node.relation)
    if node.objtype == ObjectType.OBJECT_TYPE:
        if not created.has("type", subject):
            yield "change-composite", subject
        return
    if created.has("relation", subject):
        return
    so_far = created.copy()
    for command in node.cmds or ():
        yield from _command(node, subject, command, so_far)
        so_far.alter(subject, command)


def _command(node: Any, table: str, command: Any, created: Created) -> Iterator[Hit]:
    subtype = command.subtype
    if node.objtype == ObjectType.OBJECT_INDEX and subtype == At.AT_AttachPartition:
        return
    if subtype in _BY_TABLE:
        yield _BY_TABLE[subtype], table
    elif subtype in _BY_COLUMN:
        if created.column(table, command.name) is None:
            yield _BY_COLUMN[subtype], f"{table}.{command.name}"
    elif subtype in _JUDGES:
        yield from _JUDGES[subtype](table, command, created)
    elif subtype in (At.AT_SetRelOptions, At.AT_ResetRelOptions, At.AT_ReplaceRelOptions):
        if node.objtype == ObjectType.OBJECT_VIEW:
            yield "replace-view", table
    elif subtype not in _SAFE:
        yield NOT_PROVABLE, table


def _add_column(table: str, command: Any, created: Created) -> Iterator[Hit]:
    definition = command.def_
    added = column(definition)
    subject = f"{table}.{definition.colname}"
    yield "add-column", subject
    if added.generated:
        yield "computed-in-writes", subject
    if added.is_required:
        yield "add-required-column", subject
    elif added.not_null and added.generated:
        yield "set-not-null", subject
    # The new column is one that its own constraints may speak of.
    known = created.copy()
    known.alter(table, command, for_certain=True)
    constraints = definition.constraints or ()
    enforced = all(c.contype != ConstrType.CONSTR_ATTR_NOT_ENFORCED for c in constraints)
    for constraint in constraints:
        yield from _constraint(table, constraint, known, [definition.colname], enforced=enforced)


def _add_constraint(table: str, command: Any, created: Created) -> Iterator[Hit]:
    constraint = command.def_
    keys = [name(key) for key in (constraint.fk_attrs or constraint.keys or ())]
    if constraint.contype == ConstrType.CONSTR_NOTNULL:
        for key in keys:
            yield from _not_null(table, key, created)
        return
    if constraint.contype == ConstrType.CONSTR_PRIMARY:
        if constraint.indexname:
            yield "set-not-null", table
            return
        for key in keys:
            added = created.column(table, key)
            if added is not None and added.stays_null:
                yield "add-required-column", f"{table}.{key}"
    yield from _constraint(table, constraint, created, keys, enforced=bool(constraint.is_enforced))


def _constraint(
    table: str, constraint: Any, created: Created, keys: list[str], *, enforced: bool
) -> Iterator[Hit]:
    subject = f"{table} ({', '.join(keys)})" if keys else table
    if constraint.conname:
        subject = f"{table}.{constraint.conname}"
    match constraint.contype:
        case ConstrType.CONSTR_CHECK:
            if enforced and not _checks_new_columns_only(table, constraint, created):
                yield "add-check", subject
        case ConstrType.CONSTR_FOREIGN:
            if enforced and not _stays_null(created.column(table, key) for key in keys):
                yield "add-foreign-key", subject
        case ConstrType.CONSTR_UNIQUE | ConstrType.CONSTR_PRIMARY:
            if not constraint.indexname and not _never_twice(
                table, keys, created, nulls_distinct=not constraint.nulls_not_distinct
            ):
                yield "add-unique", subject
        case ConstrType.CONSTR_EXCLUSION:
            yield "add-exclusion", subject


def _set_default(table: str, command: Any, created: Created) -> Iterator[Hit]:
    added = created.column(table, command.name)
    if added is None:
        yield (
            "drop-default" if command.def_ is None else "change-default",
            f"{table}.{command.name}",
        )
    elif command.def_ is None and added.not_null and not added.generated:
        yield "add-required-column", f"{table}.{command.name}"


def _set_not_null(table: str, command: Any, created: Created) -> Iterator[Hit]:
    yield from _not_null(table, command.name, created)


def _not_null(table: str, key: str | None, created: Created) -> Iterator[Hit]:
    added = created.column(table, key)
    if added is None or added.generated:
        yield "set-not-null", f"{table}.{key}"
    elif added.stays_null:
        yield "add-required-column", f"{table}.{key}"


def _add_identity(table: str, command: Any, created: Created) -> Iterator[Hit]:
    constraint = command.def_
    if created.column(table, command.name) is None and constraint.generated_when == "a":
        yield "add-identity", f"{table}.{command.name}"


def _set_identity(table: str, command: Any, created: Created) -> Iterator[Hit]:
    if created.column(table, command.name) is not None:
        return
    for option in command.def_:
        if option.defname != "generated":
            yield "change-sequence", f"{table}.{command.name}"
        elif option.arg.ival == _ALWAYS:
            yield "add-identity", f"{table}.{command.name}"


def _drop_constraint(table: str, command: Any, created: Created) -> Iterator[Hit]:
    subject = f"{table}.{command.name}"
    if not created.has("constraint", subject):
        yield "drop-constraint", subject


def _alter_constraint(table: str, command: Any, created: Created) -> Iterator[Hit]:
    definition = command.def_
    subject = f"{table}.{definition.conname}"
    if not created.has("constraint", subject):
        yield "change-constraint", subject


def _attach(table: str, command: Any, created: Created) -> Iterator[Hit]:
    attached = command.def_.name
    if not created.table(attached):
        yield "attach-partition", f"{table} ({qualified(attached)})"


_JUDGES: dict[Any, Callable[[str, Any, Created], Iterator[Hit]]] = {
    At.AT_AddColumn: _add_column,
    At.AT_AddConstraint: _add_constraint,
    At.AT_ColumnDefault: _set_default,
    At.AT_SetNotNull: _set_not_null,
    At.AT_AddIdentity: _add_identity,
    At.AT_SetIdentity: _set_identity,
    At.AT_DropConstraint: _drop_constraint,
    At.AT_AlterConstraint: _alter_constraint,
    At.AT_AttachPartition: _attach,
}


def index(node: Any, created: Created) -> Iterator[Hit]:
    """Judge CREATE INDEX: a unique one restricts writes, CONCURRENTLY or not."""
    table = qualified(node.relation)
    if created.has("relation", table):
        return
    subject = node.idxname or table
    parts = node.indexParams or ()
    keys = [part.name for part in parts if part.name]
    if node.unique and not _never_twice(
        table, keys, created, nulls_distinct=not node.nulls_not_distinct
    ):
        yield "add-unique", subject
    if node.whereClause is not None or any(part.expr is not None for part in parts):
        yield "computed-in-writes", subject


def _checks_new_columns_only(table: str, constraint: Any, created: Created) -> bool:
    """The rows there are hold what old writes give the new columns, and are checked at once.

    With NOT VALID they are not.
    """
    if constraint.skip_validation:
        return False
    names = columns_in(constraint.raw_expr)
    found = [created.column(table, each) for each in names]
    return bool(found) and all(each is not None and not each.generated for each in found)


def _stays_null(found: Iterable[Column | None]) -> bool:
    """Old writes leave one of the columns NULL, and what is NULL violates nothing."""
    return any(each is not None and each.stays_null for each in found)


def _never_twice(table: str, keys: list[str], created: Created, *, nulls_distinct: bool) -> bool:
    found = [created.column(table, key) for key in keys]
    unique_by_itself = any(each is not None and each.never_twice for each in found)
    return unique_by_itself or (nulls_distinct and _stays_null(found))


def columns_in(expression: Any) -> set[str]:
    """The names of the columns that an expression speaks of, without their tables."""
    found: set[str] = set()
    for node in walk.nodes(expression):
        fields: Any = getattr(node, "fields", None)
        if fields and isinstance(node, ast.ColumnRef):
            found.add(name(fields[-1]))
    return found
