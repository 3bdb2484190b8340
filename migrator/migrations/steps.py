"""Turn each difference into a safe step: Python for upgrade(), SQL for the way back, its phase."""

from __future__ import annotations

import copy
import io
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations, ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from migrator.migrations.compare import Check, Difference
from migrator.migrations.renames import Rename, dotted, place
from migrator.migrations.revision import Phase
from migrator.migrations.scripts import AUTOCOMMIT

# The revisions of a series, in order: what stands first must be there for what stands after it.
DROPS_ALONE, UNTIES, TOGETHER, BUILDS_ALONE, VALIDATES, FINISHES, DROPS_TABLES = range(7)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of a revision. `stage` orders it; a step that stands alone has a revision of its own."""

    phase: Phase
    stage: int
    table: str
    code: str
    undo: str = ""
    loses: str | None = None
    says: str = ""

    @property
    def alone(self) -> bool:
        return self.stage in (DROPS_ALONE, BUILDS_ALONE)


@dataclass
class Drafter:
    """Writes steps for the differences between one database and one metadata."""

    difference: Difference
    imports: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        options = {
            "sqlalchemy_module_prefix": "sa.",
            "alembic_module_prefix": "op.",
            "user_module_prefix": None,
            "render_as_batch": False,
            "render_item": self._note_module,
        }
        self._rendering = AutogenContext(self.difference.context, opts=options, autogenerate=False)
        self._rendering.imports = self.imports
        operations = self.difference.operations
        self._created = {place(o) for o in operations if isinstance(o, ops.CreateTableOp)}
        self._dropped = {place(o) for o in operations if isinstance(o, ops.DropTableOp)}
        self._types: set[str] = set(self.difference.types)
        self._restored: set[Check] = set()

    def steps(self, operation: Any) -> Iterator[Step]:  # noqa: C901 - one line a kind
        """The steps of one operation, in the order in which they are done."""
        match operation:
            case ops.CreateTableOp():
                yield from self._create_table(operation)
            case ops.AddColumnOp():
                yield from self._add_column(operation)
            case ops.CreateIndexOp():
                yield self._create_index(operation)
            case ops.DropIndexOp():
                yield self._drop_index(operation)
            case ops.CreateUniqueConstraintOp():
                yield from self._unique(operation)
            case ops.CreateForeignKeyOp() | ops.CreateCheckConstraintOp():
                yield from self._constraint(operation)
            case ops.AlterColumnOp():
                yield from self._alter_column(operation)
            case ops.DropColumnOp():
                yield self._drop_column(operation)
            case ops.DropTableOp():
                lost = f"the rows of {_shown(operation)}, dropped by this revision: it comes back empty"
                yield self._plain(operation, "contract", loses=lost, stage=DROPS_TABLES)
            case ops.DropConstraintOp():
                foreign = operation.constraint_type == "foreignkey"
                yield self._plain(operation, "contract", stage=UNTIES if foreign else TOGETHER)
            case _:
                yield self._plain(operation, "expand")

    def renamed(self, rename: Rename) -> Step:
        """A rename that somebody has confirmed; the old name goes, so its phase is contract."""
        if rename.table is None:
            old, new = rename.old, rename.new
            operation: Any = ops.RenameTableOp(old, new, schema=_schema(rename.vanished))
            back: Any = ops.RenameTableOp(new, old, schema=_schema(rename.vanished))
            code = f"op.rename_table({old!r}, {new!r}{_schema_argument(operation)})"
        else:
            vanished: Any = rename.vanished
            table = vanished.table_name
            back = ops.AlterColumnOp(table, rename.new, schema=vanished.schema)
            back.modify_name = rename.old
            code = (
                f"op.alter_column({table!r}, {rename.old!r}, new_column_name={rename.new!r}"
                f"{_schema_argument(vanished)})"
            )
        return Step(
            phase="contract",
            stage=TOGETHER,
            table=rename.table or rename.old,
            code=code,
            undo=self._sql(back),
            says=f"rename {rename.old} to {rename.new}",
        )

    def choice(self, rename: Rename) -> str:
        """Both readings of what may be a rename, commented out."""
        vanished = "\n".join(step.code for step in self.steps(rename.vanished))
        appeared = "\n".join(step.code for step in self.steps(rename.appeared))
        lines = [
            f"{rename} Choose one:",
            self.renamed(rename).code + "   # contract: the old name goes",
            "or, if they have nothing to do with each other:",
            appeared,
            vanished + "   # contract: in a later revision",
        ]
        return textwrap.indent("\n".join(lines), "# ")

    def _plain(
        self, operation: Any, phase: Phase, *, loses: str | None = None, stage: int = TOGETHER
    ) -> Step:
        return Step(
            phase=phase,
            stage=stage,
            table=_shown(operation),
            code=self._code(operation),
            undo=self._sql(operation.reverse()),
            loses=loses,
        )

    def _create_table(self, operation: ops.CreateTableOp) -> Iterator[Step]:
        yield from self._new_types(operation, [c for c in operation.columns if _is_column(c)])
        yield self._plain(operation, "expand", loses=f"the rows of {_shown(operation)}")

    def _add_column(self, operation: ops.AddColumnOp) -> Iterator[Step]:
        column = operation.column
        yield from self._new_types(operation, [column])
        required = not column.nullable and column.server_default is None
        required = required and column.identity is None and column.computed is None
        if required:
            operation = copy.copy(operation)
            operation.column = column = _copied(column)
            column.nullable = True
        where = f"{_shown(operation)}.{column.name}"
        yield self._plain(operation, "expand", loses=f"the values of {where}")
        if required:
            alter = ops.AlterColumnOp(
                operation.table_name,
                column.name,
                schema=operation.schema,
                existing_type=column.type,
                existing_nullable=True,
                modify_nullable=False,
            )
            yield from self._set_not_null(alter)

    def _new_types(self, operation: Any, columns: list[Any]) -> Iterator[Step]:
        """An enum is created once and by itself: neither ADD COLUMN nor a second table would."""
        for column in columns:
            enum = _not_created(column)
            if enum is None or enum.name in self._types:
                continue
            self._types.add(str(enum.name))
            name = self._quoted(enum.schema, enum.name)
            values = ", ".join("'" + value.replace("'", "''") + "'" for value in enum.enums)
            yield Step(
                phase="expand",
                stage=TOGETHER,
                table=_shown(operation),
                code=_execute(f"CREATE TYPE {name} AS ENUM ({values})"),
                undo=f"DROP TYPE {name};",
            )

    def _create_index(self, operation: ops.CreateIndexOp) -> Step:
        if place(operation) in self._created:
            return Step(
                phase="expand", stage=TOGETHER, table=_shown(operation), code=self._code(operation)
            )
        phase: Phase = "contract" if operation.unique else "expand"
        if place(operation) in self.difference.partitioned:
            return self._plain(operation, phase)
        return self._index_alone(operation, phase)

    def _index_alone(self, operation: ops.CreateIndexOp, phase: Phase) -> Step:
        operation = copy.copy(operation)
        operation.kw = {**operation.kw, "postgresql_concurrently": True}
        operation.if_not_exists = True
        drop = ops.DropIndexOp(
            str(operation.index_name),
            operation.table_name,
            schema=operation.schema,
            if_exists=True,
            postgresql_concurrently=True,
        )
        return Step(
            phase=phase,
            stage=BUILDS_ALONE,
            table=_shown(operation),
            code=self._code(operation),
            undo=self._sql(drop),
            says=f"index {operation.index_name}",
        )

    def _drop_index(self, operation: ops.DropIndexOp) -> Step:
        create: Any = operation.reverse()
        if place(operation) in self._dropped:
            table = _shown(operation)
            return Step(
                phase="contract", stage=DROPS_TABLES, table=table, code="", undo=self._sql(create)
            )
        if place(operation) in self.difference.partitioned:
            return self._plain(operation, "contract")
        operation = copy.copy(operation)
        operation.kw = {**operation.kw, "postgresql_concurrently": True}
        operation.if_exists = True
        create.kw = {**create.kw, "postgresql_concurrently": True}
        create.if_not_exists = True
        return Step(
            phase="contract",
            stage=DROPS_ALONE,
            table=_shown(operation),
            code=self._code(operation),
            undo=self._sql(create),
            says=f"drop index {operation.index_name}",
        )

    def _unique(self, operation: ops.CreateUniqueConstraintOp) -> Iterator[Step]:
        columns = [str(column) for column in operation.columns]
        table = operation.table_name
        name = str(operation.constraint_name or "_".join([table, *columns, "key"]))
        index = ops.CreateIndexOp(name, table, columns, schema=operation.schema, unique=True)
        yield self._index_alone(index, "contract")
        quoted, constraint = self._quoted(operation.schema, table), self._quoted(None, name)
        yield Step(
            phase="contract",
            stage=FINISHES,
            table=_shown(operation),
            code=_execute(
                f"ALTER TABLE {quoted} ADD CONSTRAINT {constraint} UNIQUE USING INDEX {constraint}"
            ),
            undo=f"ALTER TABLE {quoted} DROP CONSTRAINT {constraint};",
        )

    def _constraint(self, operation: Any) -> Iterator[Step]:
        """A foreign key or CHECK: added without a look at the rows, then validated beside writers."""
        operation = copy.copy(operation)
        if operation.constraint_name is None:
            columns = [str(column) for column in operation.local_cols]
            operation.constraint_name = "_".join([operation.source_table, *columns, "fkey"])
        operation.kw = {**operation.kw, "postgresql_not_valid": True}
        yield self._plain(operation, "contract")
        yield self._validate(operation)

    def _validate(self, operation: Any) -> Step:
        quoted = self._quoted(*place(operation))
        name = self._quoted(None, operation.constraint_name)
        return Step(
            phase="contract",
            stage=VALIDATES,
            table=_shown(operation),
            code=_execute(f"ALTER TABLE {quoted} VALIDATE CONSTRAINT {name}"),
        )

    def _alter_column(self, operation: ops.AlterColumnOp) -> Iterator[Step]:
        where = f"{_shown(operation)}.{operation.column_name}"
        if operation.modify_nullable is False:
            yield from self._set_not_null(_only(operation, "modify_nullable"))
        elif operation.modify_nullable is True:
            nullable = self._plain(_only(operation, "modify_nullable"), "expand")
            warning = f"-- fails while {where} is NULL in any row: fill those first"
            yield replace(nullable, undo=f"{warning}\n{nullable.undo}")
        if operation.modify_type is not None:
            lost = f"what {operation.existing_type} cannot hold of {where}"
            yield self._plain(_only(operation, "modify_type"), "contract", loses=lost)
        if operation.modify_server_default is not False:
            yield self._plain(_only(operation, "modify_server_default"), "contract")
        if operation.modify_comment is not False:
            yield self._plain(_only(operation, "modify_comment"), "expand")

    def _set_not_null(self, operation: ops.AlterColumnOp) -> Iterator[Step]:
        """By a CHECK that is validated first, SET NOT NULL need not read the table under its lock."""
        table, column = operation.table_name, operation.column_name
        name = f"{table}_{column}_not_null"[:63]
        quoted = self._quoted(operation.schema, table)
        condition = f"{self._quoted(None, column)} IS NOT NULL"
        check, in_sql = self._quoted(None, name), f"CHECK ({condition}) NOT VALID"
        add = f"ALTER TABLE {quoted} ADD CONSTRAINT {check} {in_sql}"
        drop = f"ALTER TABLE {quoted} DROP CONSTRAINT {check}"
        yield Step(
            phase="contract",
            stage=TOGETHER,
            table=_shown(operation),
            code=_execute(add),
            undo=f"{drop};",
        )
        yield Step(
            phase="contract",
            stage=VALIDATES,
            table=_shown(operation),
            code=_execute(f"ALTER TABLE {quoted} VALIDATE CONSTRAINT {check}"),
        )
        yield Step(
            phase="contract",
            stage=FINISHES,
            table=_shown(operation),
            code="\n".join([self._code(operation), _execute(drop)]),
            undo=f"{self._sql(operation.reverse())}\n{add};",
        )

    def _drop_column(self, operation: ops.DropColumnOp) -> Step:
        back: Any = operation.reverse()
        where = f"{_shown(operation)}.{operation.column_name}"
        lost = f"the values of {where}, dropped by this revision: it comes back empty"
        column = back.column
        if not column.nullable and column.server_default is None and column.identity is None:
            back.column = column = _copied(column)
            column.nullable = True
            lost += ", and without its NOT NULL, which the rows that are there could not meet"
        return Step(
            phase="contract",
            stage=TOGETHER,
            table=_shown(operation),
            code=self._code(operation),
            undo="\n".join([self._sql(back), *self._checks_of(operation)]),
            loses=lost,
        )

    def _checks_of(self, operation: ops.DropColumnOp) -> Iterator[str]:
        """What brings back the CHECKs that go with the column, once all their columns are back."""
        for check in self.difference.checks:
            at = (check.schema, check.table)
            if at != place(operation) or operation.column_name not in check.columns:
                continue
            if check not in self._restored:
                self._restored.add(check)
                name = self._quoted(None, check.name)
                yield f"ALTER TABLE {self._quoted(*at)} ADD CONSTRAINT {name} {check.definition};"

    def _code(self, operation: Any) -> str:
        return render.render_op_text(self._rendering, operation)

    def _sql(self, operation: Any) -> str:
        """The operation's SQL, as Alembic renders it without a database."""
        for column in getattr(operation, "columns", ()):
            _not_created(column)
        buffer = io.StringIO()
        context = MigrationContext.configure(
            dialect_name="postgresql",
            opts={"as_sql": True, "literal_binds": True, "output_buffer": buffer},
        )
        Operations(context).invoke(operation)
        return re.sub(r"\n\n+", "\n", buffer.getvalue()).strip()

    def _quoted(self, schema: str | None, name: str) -> str:
        quote = self.difference.context.dialect.identifier_preparer.quote
        return f"{quote(schema)}.{quote(name)}" if schema else str(quote(name))

    def _note_module(self, _kind: str, found: Any, _context: Any) -> bool:
        """Import the module of a type that is the project's own; Alembic writes the rest."""
        module = type(found).__module__
        if isinstance(found, sa.types.TypeEngine) and not module.startswith("sqlalchemy."):
            self.imports.add(f"import {module}")
        return False


def autocommit(code: str) -> str:
    """The block that a statement outside a transaction stands in."""
    return "with op.get_context().autocommit_block():\n" + textwrap.indent(code, "    ")


def autocommit_script(undo: str) -> str:
    return f"{AUTOCOMMIT}\n{undo}"


def _execute(statement: str) -> str:
    return f"op.execute({statement!r})"


def _only(operation: ops.AlterColumnOp, kept: str) -> ops.AlterColumnOp:
    """The operation with one of its changes alone."""
    part = copy.copy(operation)
    for name, nothing in (
        ("modify_nullable", None),
        ("modify_type", None),
        ("modify_server_default", False),
        ("modify_comment", False),
    ):
        if name != kept:
            setattr(part, name, nothing)
    return part


def _not_created(column: Any) -> Any:
    """Let a column's enum not be created with its table; returns the enum, or None if it has none."""
    enum = getattr(column, "type", None)
    if not isinstance(enum, sa.Enum) or not enum.native_enum or not enum.name:
        return None
    values = enum.enums
    column.type = postgresql.ENUM(*values, name=enum.name, schema=enum.schema, create_type=False)
    return enum


def _copied(column: Any) -> Any:
    return column._copy()  # noqa: SLF001 - SQLAlchemy has no public copy of a column


def _is_column(found: Any) -> bool:
    return isinstance(found, sa.Column)


def _schema(operation: Any) -> str | None:
    schema: str | None = getattr(operation, "schema", None)
    return schema


def _schema_argument(operation: Any) -> str:
    schema = _schema(operation)
    return f", schema={schema!r}" if schema else ""


def _shown(operation: Any) -> str:
    return dotted(*place(operation))
