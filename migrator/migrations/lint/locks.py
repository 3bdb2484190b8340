"""Which lock a statement takes on which relation, as PostgreSQL documents it; pure.

The table is checked against a server's pg_locks by tests/integration/test_lint_locks.py. What a
statement does not name is not known here: the tables behind a view, a table's partitions, the
table of a dropped index, the other side of a dropped foreign key.
Source: PostgreSQL's documentation, 13.3 Explicit Locking and the pages of the statements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import qualified
from migrator.migrations.lint.walk import key, nodes

AT, Object, Constraint = enums.AlterTableType, enums.ObjectType, enums.ConstrType


class Mode(IntEnum):
    """PostgreSQL's lock modes, weakest first; the value is the one that LOCK's parse tree has."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    @property
    def blocks_writers(self) -> bool:
        """Whether no other session can insert, update or delete while it is held."""
        return self >= Mode.SHARE

    @property
    def blocks_readers(self) -> bool:
        """Whether no other session can read while it is held."""
        return self == Mode.ACCESS_EXCLUSIVE


@dataclass(frozen=True)
class Lock:
    """A lock on a relation by its name as written; `kind` tells an index from a table."""

    table: str
    mode: Mode
    kind: str = "table"


def locks(node: ast.Node) -> tuple[Lock, ...]:
    """The strongest lock that the statement takes on each relation that it names."""
    strongest: dict[str, Lock] = {}
    for lock in _each(node):
        held = strongest.get(lock.table)
        if lock.table and (held is None or held.mode < lock.mode):
            strongest[lock.table] = lock
    return tuple(strongest.values())


def taken(node: ast.Node, made: Collection[str]) -> list[Lock]:
    """The locks that another session can be waiting for: not those on tables of `made` (keys)."""
    return [lock for lock in locks(node) if key(lock.table) not in made]


def alter_mode(command: Any) -> Mode:
    """The lock on the table itself that one action of ALTER TABLE takes."""
    match command.subtype:
        case AT.AT_AddConstraint:
            foreign = command.def_.contype == Constraint.CONSTR_FOREIGN
            return Mode.SHARE_ROW_EXCLUSIVE if foreign else Mode.ACCESS_EXCLUSIVE
        case AT.AT_SetRelOptions | AT.AT_ResetRelOptions:
            strong = any(each.defname in _STRONG_OPTIONS for each in command.def_ or ())
            return Mode.ACCESS_EXCLUSIVE if strong else Mode.SHARE_UPDATE_EXCLUSIVE
        case AT.AT_DetachPartition:
            concurrent = command.def_.concurrent
            return Mode.SHARE_UPDATE_EXCLUSIVE if concurrent else Mode.ACCESS_EXCLUSIVE
        case _:
            return _ALTER.get(command.subtype, Mode.ACCESS_EXCLUSIVE)


_STRONG_OPTIONS = {"user_catalog_table", "security_barrier", "security_invoker", "check_option"}

# Whatever is not named here takes ACCESS EXCLUSIVE.
_ALTER = {
    AT.AT_EnableTrig: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_EnableAlwaysTrig: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_EnableReplicaTrig: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_EnableTrigAll: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_EnableTrigUser: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_DisableTrig: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_DisableTrigAll: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_DisableTrigUser: Mode.SHARE_ROW_EXCLUSIVE,
    AT.AT_AttachPartition: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_DetachPartitionFinalize: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_ValidateConstraint: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_SetStatistics: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_SetOptions: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_ResetOptions: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_ClusterOn: Mode.SHARE_UPDATE_EXCLUSIVE,
    AT.AT_DropCluster: Mode.SHARE_UPDATE_EXCLUSIVE,
}

_DROPS_ON_TABLE = {Object.OBJECT_TRIGGER, Object.OBJECT_RULE, Object.OBJECT_POLICY}
_DROPS = {
    Object.OBJECT_TABLE: "table",
    Object.OBJECT_FOREIGN_TABLE: "table",
    Object.OBJECT_VIEW: "view",
    Object.OBJECT_MATVIEW: "materialized view",
    Object.OBJECT_SEQUENCE: "sequence",
    Object.OBJECT_INDEX: "index",
}
# A comment on a trigger, a constraint, a rule or a policy takes ACCESS SHARE on its table.
_COMMENTED = {Object.OBJECT_TABLE: 0, Object.OBJECT_COLUMN: 1}


def _each(node: Any) -> Iterator[Lock]:
    named = _ON_RELATION.get(type(node))
    if named is not None:
        attribute, mode = named
        yield Lock(qualified(getattr(node, attribute)), mode)
    elif many := _ON_RELATIONS.get(type(node)):
        for relation in node.relations:
            yield Lock(qualified(relation), many)
    else:
        yield from _OTHERS.get(type(node), _read)(node)


_ON_RELATION = {
    ast.RuleStmt: ("relation", Mode.ACCESS_EXCLUSIVE),
    ast.ClusterStmt: ("relation", Mode.ACCESS_EXCLUSIVE),
    ast.CreatePolicyStmt: ("table", Mode.ACCESS_EXCLUSIVE),
    ast.AlterPolicyStmt: ("table", Mode.ACCESS_EXCLUSIVE),
    ast.AlterSeqStmt: ("sequence", Mode.SHARE_ROW_EXCLUSIVE),
}
_ON_RELATIONS = {
    ast.TruncateStmt: Mode.ACCESS_EXCLUSIVE,
    ast.CreateStatsStmt: Mode.SHARE_UPDATE_EXCLUSIVE,
}


def _indexed(node: Any) -> Iterator[Lock]:
    mode = Mode.SHARE_UPDATE_EXCLUSIVE if node.concurrent else Mode.SHARE
    yield Lock(qualified(node.relation), mode)


def _triggered(node: Any) -> Iterator[Lock]:
    yield Lock(qualified(node.relation), Mode.SHARE_ROW_EXCLUSIVE)
    yield Lock(qualified(node.constrrel), Mode.ACCESS_SHARE)


def _locked(node: Any) -> Iterator[Lock]:
    for relation in node.relations:
        yield Lock(qualified(relation), Mode(node.mode))


def _refreshed(node: Any) -> Iterator[Lock]:
    mode = Mode.EXCLUSIVE if node.concurrent else Mode.ACCESS_EXCLUSIVE
    yield Lock(qualified(node.relation), mode, "materialized view")


def _published(node: Any) -> Iterator[Lock]:
    for each in node.pubobjects or ():
        if each.pubtable:
            yield Lock(qualified(each.pubtable.relation), Mode.SHARE_UPDATE_EXCLUSIVE)


def _copied(node: Any) -> Iterator[Lock]:
    mode = Mode.ROW_EXCLUSIVE if node.is_from else Mode.ACCESS_SHARE
    yield Lock(qualified(node.relation), mode)
    yield from _read(node.query)


def _altered(node: Any) -> Iterator[Lock]:
    name = qualified(node.relation)
    kind = _KINDS.get(node.objtype, "table")
    for command in node.cmds or ():
        yield Lock(name, alter_mode(command), kind)
        yield from _beside(command, kind)


_KINDS: dict[Any, str] = {
    Object.OBJECT_INDEX: "index",
    Object.OBJECT_VIEW: "view",
    Object.OBJECT_MATVIEW: "materialized view",
    Object.OBJECT_SEQUENCE: "sequence",
}


def _beside(command: Any, kind: str) -> Iterator[Lock]:
    """What an action of ALTER TABLE locks beside its table."""
    match command.subtype:
        case AT.AT_AddConstraint:
            yield from _references([command.def_])
        case AT.AT_AddColumn:
            yield from _references(command.def_.constraints)
        case AT.AT_AttachPartition:
            yield Lock(qualified(command.def_.name), Mode.ACCESS_EXCLUSIVE, kind)
        case AT.AT_DetachPartition | AT.AT_DetachPartitionFinalize:
            yield Lock(qualified(command.def_.name), Mode.ACCESS_EXCLUSIVE, kind)
        case AT.AT_AddInherit:
            yield Lock(qualified(command.def_), Mode.SHARE_UPDATE_EXCLUSIVE)
        case AT.AT_DropInherit:
            yield Lock(qualified(command.def_), Mode.ACCESS_SHARE)


def _references(constraints: Iterable[Any] | None) -> Iterator[Lock]:
    for each in constraints or ():
        if each.contype == Constraint.CONSTR_FOREIGN:
            yield Lock(qualified(each.pktable), Mode.SHARE_ROW_EXCLUSIVE)


def _renamed(node: Any) -> Iterator[Lock]:
    kind = node.renameType if isinstance(node, ast.RenameStmt) else node.objectType
    of_index = kind == Object.OBJECT_INDEX
    mode = Mode.SHARE_UPDATE_EXCLUSIVE if of_index else Mode.ACCESS_EXCLUSIVE
    yield Lock(qualified(node.relation), mode, _KINDS.get(kind, "table"))


def _dropped(node: Any) -> Iterator[Lock]:
    for each in node.objects or ():
        if node.removeType in _DROPS_ON_TABLE:
            yield Lock(_joined(each[:-1]), Mode.ACCESS_EXCLUSIVE)
        elif node.removeType in _DROPS:
            mode = Mode.SHARE_UPDATE_EXCLUSIVE if node.concurrent else Mode.ACCESS_EXCLUSIVE
            yield Lock(_joined(each), mode, _DROPS[node.removeType])


def _created(node: Any) -> Iterator[Lock]:
    for each in node.tableElts or ():
        if isinstance(each, ast.ColumnDef):
            yield from _references(each.constraints)
        elif isinstance(each, ast.Constraint):
            yield from _references([each])
        elif isinstance(each, ast.TableLikeClause):
            yield Lock(qualified(each.relation), Mode.ACCESS_SHARE)
    yield from _references(node.constraints)
    for parent in node.inhRelations or ():
        mode = Mode.ACCESS_EXCLUSIVE if node.partbound else Mode.SHARE_UPDATE_EXCLUSIVE
        yield Lock(qualified(parent), mode)


def _reindexed(node: Any) -> Iterator[Lock]:
    if node.relation is None:
        return
    of_index = node.kind == enums.ReindexObjectType.REINDEX_OBJECT_INDEX
    concurrent = any(each.defname == "concurrently" for each in node.params or ())
    mode = Mode.ACCESS_EXCLUSIVE if of_index else Mode.SHARE
    yield Lock(
        qualified(node.relation),
        Mode.SHARE_UPDATE_EXCLUSIVE if concurrent else mode,
        "index" if of_index else "table",
    )


def _vacuumed(node: Any) -> Iterator[Lock]:
    mode = Mode.ACCESS_EXCLUSIVE if is_vacuum_full(node) else Mode.SHARE_UPDATE_EXCLUSIVE
    for each in node.rels or ():
        if each.relation:
            yield Lock(qualified(each.relation), mode)


def is_vacuum_full(node: ast.Node) -> bool:
    """Whether it is VACUUM FULL, in either spelling."""
    return isinstance(node, ast.VacuumStmt) and any(
        each.defname == "full" and getattr(each.arg, "sval", "on") not in ("off", "false")
        for each in node.options or ()
    )


def _commented(node: Any) -> Iterator[Lock]:
    if node.objtype in _COMMENTED:
        names = node.object[: -_COMMENTED[node.objtype] or None]
        yield Lock(_joined(names), Mode.SHARE_UPDATE_EXCLUSIVE)


def _joined(names: Iterable[Any]) -> str:
    return ".".join([each.sval for each in names][-2:])


_QUERIES = (
    ast.SelectStmt,
    ast.InsertStmt,
    ast.UpdateStmt,
    ast.DeleteStmt,
    ast.MergeStmt,
    ast.CreateTableAsStmt,
    ast.ViewStmt,
    ast.ExplainStmt,
    ast.DeclareCursorStmt,
)
_WRITES = (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)


def _read(node: ast.Node | None) -> Iterator[Lock]:
    """Tables that a query reads, locks row by row, or writes; what a WITH names is no table."""
    if not isinstance(node, _QUERIES):
        return
    within = list(nodes(node))
    named: set[Any] = {each.ctename for each in within if isinstance(each, ast.CommonTableExpr)}
    made = {id(each.rel) for each in within if isinstance(each, ast.IntoClause)}
    made |= {id(each.view) for each in within if isinstance(each, ast.ViewStmt)}
    for each in within:
        if isinstance(each, _WRITES):
            yield Lock(qualified(each.relation), Mode.ROW_EXCLUSIVE)
        elif isinstance(each, ast.SelectStmt) and each.lockingClause:
            tables = (one for one in each.fromClause or () if isinstance(one, ast.RangeVar))
            yield from (Lock(qualified(one), Mode.ROW_SHARE) for one in tables)
        elif isinstance(each, ast.RangeVar) and not {qualified(each), id(each)} & (named | made):
            yield Lock(qualified(each), Mode.ACCESS_SHARE)


_OTHERS: dict[type[ast.Node], Callable[[Any], Iterator[Lock]]] = {
    ast.AlterTableStmt: _altered,
    ast.RenameStmt: _renamed,
    ast.AlterObjectSchemaStmt: _renamed,
    ast.DropStmt: _dropped,
    ast.CreateStmt: _created,
    ast.IndexStmt: _indexed,
    ast.ReindexStmt: _reindexed,
    ast.CreateTrigStmt: _triggered,
    ast.LockStmt: _locked,
    ast.VacuumStmt: _vacuumed,
    ast.RefreshMatViewStmt: _refreshed,
    ast.CommentStmt: _commented,
    ast.SecLabelStmt: _commented,
    ast.CreatePublicationStmt: _published,
    ast.AlterPublicationStmt: _published,
    ast.CopyStmt: _copied,
}
