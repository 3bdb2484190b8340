"""What the statements of a revision have created so far: no running release uses that yet. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType as At
from pglast.enums import ConstrType, ObjectType

from migrator.migrations.lint.model import qualified
from migrator.migrations.names import created_function, kind, name

_SERIAL = {"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"}
_NEVER_TWICE = {
    "nextval",
    "gen_random_uuid",
    "uuidv4",
    "uuidv7",
    "uuid_generate_v1",
    "uuid_generate_v4",
}


@dataclass(frozen=True)
class Column:
    """A column that the revision adds, as an INSERT that does not name it fills it."""

    has_default: bool = False
    never_twice: bool = False
    generated: bool = False
    not_null: bool = False

    @property
    def stays_null(self) -> bool:
        return not self.has_default and not self.generated

    @property
    def is_required(self) -> bool:
        return self.not_null and self.stays_null


def column(definition: Any) -> Column:
    """Read a column's definition."""
    found = Column()
    if name(definition.typeName).lower() in _SERIAL:
        found = Column(has_default=True, never_twice=True, not_null=True)
    for constraint in definition.constraints or ():
        match constraint.contype:
            case ConstrType.CONSTR_NOTNULL | ConstrType.CONSTR_PRIMARY:
                found = replace(found, not_null=True)
            case ConstrType.CONSTR_DEFAULT:
                found = _with_default(found, constraint.raw_expr)
            case ConstrType.CONSTR_IDENTITY:
                found = replace(found, has_default=True, never_twice=True, not_null=True)
            case ConstrType.CONSTR_GENERATED:
                found = replace(found, generated=True)
    return found


def _with_default(of: Column, expression: Any) -> Column:
    """The column once its default is this one; None takes it away."""
    while isinstance(expression, ast.TypeCast):
        expression = expression.arg
    is_null = expression is None or bool(getattr(expression, "isnull", False))
    called = name(expression.funcname) if isinstance(expression, ast.FuncCall) else ""
    never_twice = called.rpartition(".")[2] in _NEVER_TWICE
    return replace(of, has_default=not is_null, never_twice=never_twice)


@dataclass
class Created:
    """Grows statement by statement: what was created before a statement is exempt from it."""

    _objects: set[tuple[str, str]] = field(default_factory=set)
    _columns: dict[tuple[str, str], Column] = field(default_factory=dict)

    def has(self, kind: str, name: str) -> bool:
        if (kind, name) in self._objects:
            return True
        schema = name.partition("(")[0].rpartition(".")[0]
        return kind in ("relation", "type", "function") and ("schema", schema) in self._objects

    def table(self, relation: Any) -> bool:
        return self.has("relation", qualified(relation))

    def column(self, table: str, name: str | None) -> Column | None:
        return self._columns.get((table, name or ""))

    def copy(self) -> Created:
        return Created(set(self._objects), dict(self._columns))

    def learn(self, node: Any) -> None:
        """Note what the statement has created, once it is judged.

        IF NOT EXISTS and OR REPLACE create nothing for certain.
        """
        if isinstance(node, ast.RenameStmt):
            self._rename(node)
        elif isinstance(node, ast.AlterTableStmt):
            for command in node.cmds or ():
                self.alter(qualified(node.relation), command)
        elif isinstance(node, ast.VariableSetStmt):
            if node.name == "search_path":
                self.forget_bare_names()
        elif type(node) in _CREATES and not _may_have_been(node):
            self._objects.add(_CREATES[type(node)](node))

    def alter(self, table: str, command: Any, *, for_certain: bool = False) -> None:
        """Note the columns and constraints that one command of ALTER TABLE adds or changes."""
        key = (table, command.name or "")
        if command.subtype == At.AT_AddColumn:
            if for_certain or not command.missing_ok:
                self._columns[table, command.def_.colname] = column(command.def_)
        elif command.subtype == At.AT_AddConstraint:
            if command.def_.conname:
                self._objects.add(("constraint", f"{table}.{command.def_.conname}"))
        elif key in self._columns and command.subtype == At.AT_DropColumn:
            del self._columns[key]
        elif key in self._columns and command.subtype in _CHANGES:
            self._columns[key] = _CHANGES[command.subtype](self._columns[key], command.def_)

    def forget_bare_names(self) -> None:
        """The search path has changed: a name without its schema may be another object now."""
        self._objects = {(kind, name) for kind, name in self._objects if "." in name}
        self._columns = {key: found for key, found in self._columns.items() if "." in key[0]}

    def _rename(self, node: Any) -> None:
        old = qualified(node.relation)
        if node.renameType == ObjectType.OBJECT_COLUMN:
            moved = self._columns.pop((old, node.subname), None)
            if moved is not None:
                self._columns[old, node.newname] = moved
        elif ("relation", old) in self._objects and kind(node.renameType) == "relation":
            self._objects.discard(("relation", old))
            self._objects.add(("relation", name([node.relation.schemaname or "", node.newname])))


def _may_have_been(node: Any) -> bool:
    of = getattr(node, "base", node)
    return bool(getattr(of, "if_not_exists", False) or getattr(of, "replace", False))


_CREATES: dict[type, Callable[[Any], tuple[str, str]]] = {
    ast.CompositeTypeStmt: lambda node: ("type", qualified(node.typevar)),
    ast.CreateDomainStmt: lambda node: ("type", name(node.domainname)),
    ast.CreateEnumStmt: lambda node: ("type", name(node.typeName)),
    ast.CreateForeignTableStmt: lambda node: ("relation", qualified(node.base.relation)),
    ast.CreateFunctionStmt: lambda node: ("function", created_function(node)),
    ast.CreatePublicationStmt: lambda node: ("publication", node.pubname),
    ast.CreateRangeStmt: lambda node: ("type", name(node.typeName)),
    ast.CreateRoleStmt: lambda node: ("role", node.role),
    ast.CreateSchemaStmt: lambda node: ("schema", node.schemaname or name(node.authrole)),
    ast.CreateSeqStmt: lambda node: ("relation", qualified(node.sequence)),
    ast.CreateStmt: lambda node: ("relation", qualified(node.relation)),
    ast.CreateTableAsStmt: lambda node: ("relation", qualified(node.into.rel)),
    ast.CreateTrigStmt: lambda node: ("trigger", f"{qualified(node.relation)}.{node.trigname}"),
    ast.IndexStmt: lambda node: (
        "relation",
        name([node.relation.schemaname or "", node.idxname or ""]),
    ),
    ast.SelectStmt: lambda node: (
        "relation",
        qualified(node.intoClause.rel) if node.intoClause else "",
    ),
    ast.ViewStmt: lambda node: ("relation", qualified(node.view)),
}
_CHANGES: dict[Any, Callable[[Column, Any], Column]] = {
    At.AT_ColumnDefault: _with_default,
    At.AT_SetNotNull: lambda found, _: replace(found, not_null=True),
    At.AT_DropNotNull: lambda found, _: replace(found, not_null=False),
    At.AT_AddIdentity: lambda found, _: replace(found, has_default=True, never_twice=True),
    At.AT_DropIdentity: lambda found, _: replace(found, has_default=False, never_twice=False),
    At.AT_DropExpression: lambda found, _: replace(found, generated=False),
}
