"""Prove that an expand revision breaks no running release, statement by statement. Pure.

What is not known to be safe is not proven, and so it is refused: a statement that is in no list
here, a DO block, SQL that cannot be known beforehand. The verdict rests on the revision alone, so
it is the same in `lint`, in a pipeline and in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast, enums
from pglast.enums import ObjectType

from migrator.migrations import phase_tables
from migrator.migrations.created import Created
from migrator.migrations.hazards import HAZARDS, NOT_PROVABLE, Hazard
from migrator.migrations.lint import walk
from migrator.migrations.lint.model import Finding, Script, Statement, qualified
from migrator.migrations.names import created_function, kind, name
from migrator.migrations.phase_tables import Hit


@dataclass(frozen=True)
class Found:
    """One hazard in one statement; without a statement where the SQL is not known."""

    hazard: Hazard
    subject: str
    statement: Statement | None


def found(script: Script) -> Iterator[Found]:
    """Everything in the script that breaks a running release, or deserves a notice; in order."""
    if not script.analysable:
        yield Found(HAZARDS[NOT_PROVABLE], script.why_not or "its SQL is not known", None)
    created = Created()
    for statement in script.statements:
        seen: set[Hit] = set()
        for hit in judge(statement.node, created):
            if hit not in seen:
                seen.add(hit)
                yield Found(HAZARDS[hit[0]], hit[1], statement)
        created.learn(statement.node)


def findings(script: Script) -> Iterator[Finding]:
    """The same for the linter. A contract revision may hold anything.

    What breaks is an error in an expand revision, and a warning in SQL that declares no phase.
    """
    if script.phase == "contract":
        return
    severe: Any = "error" if script.phase == "expand" else "warning"
    for each in found(script):
        hazard = each.hazard
        yield Finding(
            rule=hazard.id,
            severity=severe if hazard.breaks else "notice",
            category="compat",
            message=f"{each.subject}: {hazard.why}",
            rewrite=hazard.way,
            line=each.statement.line if each.statement else None,
        )


def judge(node: Any, created: Created) -> Iterator[Hit]:
    """What one statement does to a running release, after what `created` knows."""
    for nested in _nested(node):
        yield from judge(nested, created)
    judges = _JUDGES.get(type(node))
    if judges is not None:
        yield from judges(node, created)
    elif type(node) in _BY_RELATION:
        relation = getattr(node, _BY_RELATION[type(node)][1])
        if not created.table(relation):
            yield _BY_RELATION[type(node)][0], qualified(relation)
    elif type(node) in _ALWAYS:
        yield _ALWAYS[type(node)], _subject(node)
    elif type(node) not in _SAFE:
        yield NOT_PROVABLE, type(node).__name__.removesuffix("Stmt")


_SAFE: set[type] = {
    ast.AlterDefaultPrivilegesStmt,
    ast.AlterStatsStmt,
    ast.AlterTableMoveAllStmt,
    ast.CheckPointStmt,
    ast.ClusterStmt,
    ast.CommentStmt,
    ast.CompositeTypeStmt,
    ast.ConstraintsSetStmt,
    ast.CreateDomainStmt,
    ast.CreateEnumStmt,
    ast.CreateExtensionStmt,
    ast.CreateFdwStmt,
    ast.CreateForeignServerStmt,
    ast.CreateForeignTableStmt,
    ast.CreatePLangStmt,
    ast.CreateRangeStmt,
    ast.CreateRoleStmt,
    ast.CreateSchemaStmt,
    ast.CreateSeqStmt,
    ast.CreateStatsStmt,
    ast.CreateStmt,
    ast.CreateTableAsStmt,
    ast.CreateUserMappingStmt,
    ast.DiscardStmt,
    ast.ImportForeignSchemaStmt,
    ast.ListenStmt,
    ast.NotifyStmt,
    ast.RefreshMatViewStmt,
    ast.ReindexStmt,
    ast.TransactionStmt,
    ast.UnlistenStmt,
    ast.VacuumStmt,
    ast.VariableSetStmt,
    ast.VariableShowStmt,
}
_BY_RELATION: dict[type, tuple[str, str]] = {
    ast.AlterPolicyStmt: ("row-security", "table"),
    ast.CreatePolicyStmt: ("row-security", "table"),
    ast.CreateTrigStmt: ("add-trigger", "relation"),
    ast.DeleteStmt: ("delete-data", "relation"),
    ast.RuleStmt: ("change-rule", "relation"),
}
_ALWAYS: dict[type, str] = {
    ast.AlterDatabaseSetStmt: "change-role",
    ast.AlterDatabaseStmt: "change-role",
    ast.AlterExtensionContentsStmt: "change-extension",
    ast.AlterExtensionStmt: "change-extension",
    ast.AlterRoleSetStmt: "change-role",
    ast.AlterRoleStmt: "change-role",
    ast.AlterSystemStmt: "change-role",
    ast.DropOwnedStmt: "drop-object",
    ast.DropRoleStmt: "drop-object",
    ast.DropSubscriptionStmt: "drop-object",
    ast.DropTableSpaceStmt: "drop-object",
    ast.DropUserMappingStmt: "drop-object",
    ast.DropdbStmt: "drop-object",
    ast.ReassignOwnedStmt: "change-owner",
}


def _subject(node: Any) -> str:
    """The name of what the statement is about, where it has one."""
    for attribute in ("extname", "role", "roles", "dbname", "subname", "tablespacename"):
        found = name(getattr(node, attribute, None))
        if found:
            return found
    return type(node).__name__.removesuffix("Stmt")


def _nested(node: Any) -> Iterator[ast.Node]:
    """The statements that write inside WITH."""
    with_clause = getattr(node, "withClause", None)
    for cte in with_clause.ctes if with_clause is not None else ():
        if not isinstance(cte.ctequery, ast.SelectStmt):
            yield cte.ctequery


# DROP and RENAME

_DROPS = {
    ObjectType.OBJECT_AGGREGATE: "drop-function",
    ObjectType.OBJECT_DOMAIN: "drop-type",
    ObjectType.OBJECT_EXTENSION: "drop-extension",
    ObjectType.OBJECT_FOREIGN_TABLE: "drop-table",
    ObjectType.OBJECT_FUNCTION: "drop-function",
    ObjectType.OBJECT_INDEX: "drop-index",
    ObjectType.OBJECT_MATVIEW: "drop-view",
    ObjectType.OBJECT_POLICY: "row-security",
    ObjectType.OBJECT_PROCEDURE: "drop-function",
    ObjectType.OBJECT_ROUTINE: "drop-function",
    ObjectType.OBJECT_RULE: "change-rule",
    ObjectType.OBJECT_SCHEMA: "drop-schema",
    ObjectType.OBJECT_SEQUENCE: "drop-sequence",
    ObjectType.OBJECT_TABLE: "drop-table",
    ObjectType.OBJECT_TRIGGER: "drop-trigger",
    ObjectType.OBJECT_TYPE: "drop-type",
    ObjectType.OBJECT_VIEW: "drop-view",
}
_OF_A_TABLE = (ObjectType.OBJECT_TRIGGER, ObjectType.OBJECT_RULE, ObjectType.OBJECT_POLICY)
_RENAMES = {
    ObjectType.OBJECT_AGGREGATE: "rename-function",
    ObjectType.OBJECT_ATTRIBUTE: "change-composite",
    ObjectType.OBJECT_COLUMN: "rename-column",
    ObjectType.OBJECT_DOMAIN: "rename-type",
    ObjectType.OBJECT_FOREIGN_TABLE: "rename-table",
    ObjectType.OBJECT_FUNCTION: "rename-function",
    ObjectType.OBJECT_INDEX: "rename-constraint",
    ObjectType.OBJECT_MATVIEW: "rename-view",
    ObjectType.OBJECT_PROCEDURE: "rename-function",
    ObjectType.OBJECT_ROUTINE: "rename-function",
    ObjectType.OBJECT_SCHEMA: "rename-schema",
    ObjectType.OBJECT_SEQUENCE: "rename-sequence",
    ObjectType.OBJECT_TABCONSTRAINT: "rename-constraint",
    ObjectType.OBJECT_TABLE: "rename-table",
    ObjectType.OBJECT_TYPE: "rename-type",
    ObjectType.OBJECT_VIEW: "rename-view",
}
_RENAMED_UNNOTICED = (ObjectType.OBJECT_POLICY, ObjectType.OBJECT_STATISTIC_EXT)


def _drop(node: Any, created: Created) -> Iterator[Hit]:
    if node.removeType == ObjectType.OBJECT_STATISTIC_EXT:
        return
    for dropped in node.objects or ():
        subject = name(dropped)
        exempt = created.has(kind(node.removeType), subject)
        if node.removeType in _OF_A_TABLE:
            exempt = exempt or created.has("relation", subject.rpartition(".")[0])
        if not exempt:
            yield _DROPS.get(node.removeType, "drop-object"), subject


def _rename(node: Any, created: Created) -> Iterator[Hit]:
    relation, parts = qualified(node.relation), node.subname or ""
    subject = relation or name(node.object) or parts
    exempt = created.has("relation", relation) or created.has(kind(node.renameType), subject)
    match node.renameType:
        case ObjectType.OBJECT_COLUMN | ObjectType.OBJECT_TABCONSTRAINT:
            subject = f"{relation}.{parts}"
            exempt = (
                exempt
                or created.column(relation, parts) is not None
                or created.has("constraint", subject)
            )
        case ObjectType.OBJECT_ATTRIBUTE:
            exempt = created.has("type", relation)
        case _ if node.renameType in _RENAMED_UNNOTICED:
            exempt = True
    if not exempt:
        yield _RENAMES.get(node.renameType, "rename-object"), subject


def _set_schema(node: Any, created: Created) -> Iterator[Hit]:
    yield from _whole("set-schema", node, created)


def _owner(node: Any, created: Created) -> Iterator[Hit]:
    yield from _whole("change-owner", node, created)


def _whole(hazard: str, node: Any, created: Created) -> Iterator[Hit]:
    subject = qualified(node.relation) or name(node.object)
    if not created.has(kind(node.objectType), subject):
        yield hazard, subject


# Functions, views, types, sequences


def _function(node: Any, created: Created) -> Iterator[Hit]:
    subject = created_function(node)
    if node.replace and not created.has("function", subject):
        yield "replace-function", subject


def _change_function(node: Any, created: Created) -> Iterator[Hit]:
    if not created.has("function", name(node.func)):
        yield "change-function", name(node.func)


def _define(node: Any, _created: Created) -> Iterator[Hit]:
    if node.replace:
        yield "replace-function", name(node.defnames)


def _view(node: Any, created: Created) -> Iterator[Hit]:
    if node.replace and not created.table(node.view):
        yield "replace-view", qualified(node.view)


def _enum(node: Any, created: Created) -> Iterator[Hit]:
    if not created.has("type", name(node.typeName)):
        renames = node.oldVal is not None
        yield (
            "rename-enum-value" if renames else "add-enum-value",
            f"{name(node.typeName)} {node.oldVal if renames else node.newVal!r}",
        )


_DOMAIN = {"C": "add-check", "X": "drop-constraint", "O": "set-not-null", "N": "drop-not-null"}


def _domain(node: Any, created: Created) -> Iterator[Hit]:
    subject = name(node.typeName)
    if created.has("type", subject):
        return
    if node.subtype == "T":
        yield "drop-default" if node.def_ is None else "change-default", subject
    elif node.subtype in _DOMAIN:
        is_not_null = getattr(node.def_, "contype", None) == enums.ConstrType.CONSTR_NOTNULL
        yield "set-not-null" if is_not_null else _DOMAIN[node.subtype], subject


def _sequence(node: Any, created: Created) -> Iterator[Hit]:
    changed = {option.defname for option in node.options or ()} - {"owned_by", "cache"}
    if changed and not created.table(node.sequence):
        yield "change-sequence", qualified(node.sequence)


def _cast(node: Any, _created: Created) -> Iterator[Hit]:
    if node.context != enums.CoercionContext.COERCION_EXPLICIT:
        yield NOT_PROVABLE, f"cast of {name(node.sourcetype)} that is used unasked"


# Data


def _update(node: Any, created: Created) -> Iterator[Hit]:
    yield from _set(node.relation, node.targetList, node.whereClause, created)


def _insert(node: Any, created: Created) -> Iterator[Hit]:
    conflict = node.onConflictClause
    if conflict is not None and conflict.action == enums.OnConflictAction.ONCONFLICT_UPDATE:
        yield from _set(node.relation, conflict.targetList, conflict.whereClause, created)


def _set(relation: Any, targets: Any, where: Any, created: Created) -> Iterator[Hit]:
    table = qualified(relation)
    old = {t.name for t in targets or () if created.column(table, t.name) is None}
    if created.has("relation", table) or not old:
        return
    fills = old <= _said_null(where)
    yield "fill-null" if fills else "update-data", f"{table} ({', '.join(sorted(old))})"


def _said_null(where: Any) -> set[str]:
    """The columns that WHERE says are NULL, whatever else it says."""
    match where:
        case ast.NullTest() if where.nulltesttype == enums.NullTestType.IS_NULL:
            fields = getattr(where.arg, "fields", None)
            return {name(fields[-1])} if fields else set()
        case ast.BoolExpr() if where.boolop == enums.BoolExprType.AND_EXPR:
            return set().union(*(_said_null(arg) for arg in where.args or ()))
    return set()


def _merge(node: Any, created: Created) -> Iterator[Hit]:
    table = qualified(node.relation)
    if created.has("relation", table):
        return
    for clause in node.mergeWhenClauses or ():
        if clause.commandType == enums.CmdType.CMD_DELETE:
            yield "delete-data", table
        elif clause.commandType == enums.CmdType.CMD_UPDATE:
            yield from _set(node.relation, clause.targetList, clause.condition, created)


def _truncate(node: Any, created: Created) -> Iterator[Hit]:
    for relation in node.relations or ():
        if not created.table(relation):
            yield "truncate", qualified(relation)


def _lock(node: Any, created: Created) -> Iterator[Hit]:
    for relation in node.relations or ():
        if not created.table(relation):
            yield "lock-table", qualified(relation)


def _copy(node: Any, _created: Created) -> Iterator[Hit]:
    if node.is_program:
        yield NOT_PROVABLE, "COPY of a program"


def _explain(node: Any, created: Created) -> Iterator[Hit]:
    yield from judge(node.query, created)


# What a SELECT may call: these read, or touch the session and the transaction only.
_HARMLESS = frozenset(
    # One string, read by words: a list of them would be a page.
    """abs array_agg array_length array_to_string avg bool_and bool_or ceil char_length
    clock_timestamp coalesce concat concat_ws count current_database current_schema current_schemas
    current_setting date_part date_trunc exists extract floor format format_type generate_series
    gen_random_uuid greatest has_column_privilege has_schema_privilege has_table_privilege
    json_agg json_build_array json_build_object jsonb_agg jsonb_build_array jsonb_build_object
    jsonb_array_elements jsonb_each jsonb_object_keys least left length lower max md5 min mod now
    obj_description pg_advisory_lock pg_advisory_unlock pg_advisory_unlock_all
    pg_advisory_xact_lock pg_backend_pid pg_get_constraintdef pg_get_expr pg_get_functiondef
    pg_get_indexdef pg_get_serial_sequence pg_get_viewdef pg_is_in_recovery pg_relation_size
    pg_size_pretty pg_sleep pg_table_is_visible pg_table_size pg_total_relation_size
    pg_try_advisory_lock pg_try_advisory_xact_lock quote_ident quote_literal random rank replace
    right round row_number row_to_json set_config split_part string_agg string_to_array
    substr substring sum timezone to_char to_date to_json to_jsonb to_regclass to_regprocedure
    to_regtype to_timestamp trim trunc txid_current unnest upper uuidv4 uuidv7 version""".split()  # noqa: SIM905
)


def _select(node: Any, created: Created) -> Iterator[Hit]:
    for call in walk.nodes(node):
        if not isinstance(call, ast.FuncCall):
            continue
        schema, _, called = name(call.funcname).rpartition(".")
        if called == "setval":
            argument = call.args[0] if call.args else None
            sequence = name(getattr(argument, "val", None)) or "a sequence"
            if not created.has("relation", sequence):
                yield "change-sequence", sequence
        elif called not in _HARMLESS or schema not in ("", "pg_catalog"):
            yield NOT_PROVABLE, f"it calls {name(call.funcname)}()"
        elif called == "set_config":
            created.forget_bare_names()


# Rights, publications


def _grant(node: Any, created: Created) -> Iterator[Hit]:
    if node.is_grant:
        return
    for granted in node.objects or ():
        of_schema = node.targtype == enums.GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA
        subject = name(granted)
        if not created.has("schema" if of_schema else kind(node.objtype), subject):
            yield "revoke", subject


def _grant_role(node: Any, _created: Created) -> Iterator[Hit]:
    if not node.is_grant:
        yield "revoke", ", ".join(str(role.priv_name) for role in node.granted_roles or ())


def _publication(node: Any, created: Created) -> Iterator[Hit]:
    whole = bool(node.for_all_tables)
    tables = [getattr(spec.pubtable, "relation", None) for spec in node.pubobjects or ()]
    changes = isinstance(node, ast.AlterPublicationStmt) and (node.options or not tables)
    if whole or changes or not all(created.table(table) for table in tables):
        yield "publish-table", str(node.pubname)


_JUDGES: dict[type, Any] = {
    ast.AlterDomainStmt: _domain,
    ast.AlterEnumStmt: _enum,
    ast.AlterFunctionStmt: _change_function,
    ast.AlterObjectSchemaStmt: _set_schema,
    ast.AlterOwnerStmt: _owner,
    ast.AlterPublicationStmt: _publication,
    ast.AlterSeqStmt: _sequence,
    ast.AlterTableStmt: phase_tables.alter_table,
    ast.CopyStmt: _copy,
    ast.CreateCastStmt: _cast,
    ast.CreateFunctionStmt: _function,
    ast.CreatePublicationStmt: _publication,
    ast.DefineStmt: _define,
    ast.DropStmt: _drop,
    ast.ExplainStmt: _explain,
    ast.GrantRoleStmt: _grant_role,
    ast.GrantStmt: _grant,
    ast.IndexStmt: phase_tables.index,
    ast.InsertStmt: _insert,
    ast.LockStmt: _lock,
    ast.MergeStmt: _merge,
    ast.RenameStmt: _rename,
    ast.SelectStmt: _select,
    ast.TruncateStmt: _truncate,
    ast.UpdateStmt: _update,
    ast.ViewStmt: _view,
}
