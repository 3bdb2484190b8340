"""The DDL of a shadow table, from its definition: first bare columns, then what is built on data.

The shadow has the live table's own name, and so have its indexes and constraints, in the build's own
schema: nothing is ever renamed.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import (
    AddConstraint,
    CreateIndex,
    CreateTable,
    DropTable,
    ExecutableDDLElement,
    SetColumnComment,
    SetTableComment,
)

from migrator.projections.definition import Definition
from migrator.projections.events import DefinitionError

# "named" leaves percent signs alone; the statements are sent without parameters.
_DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]


def create_statements(table: sa.Table, schema: str) -> list[str]:
    """The table with its columns, NOT NULLs and comments, and nothing that slows a load."""
    shadow = _in_schema(table, schema)
    commented = [column for column in shadow.columns if column.comment]
    # AddConstraint takes a constraint out of CREATE TABLE; load_statements adds it.
    for constraint in _constraints(shadow):
        AddConstraint(constraint)
    return [
        _text(CreateTable(shadow)),
        *([_text(SetTableComment(shadow))] if shadow.comment else []),
        *(_text(SetColumnComment(column)) for column in commented),
    ]


def load_statements(table: sa.Table, schema: str) -> list[str]:
    """The constraints, the primary key first, then the indexes."""
    shadow = _in_schema(table, schema)
    return [
        *(_text(AddConstraint(constraint)) for constraint in _constraints(shadow)),
        *(
            _text(CreateIndex(index))
            for index in sorted(shadow.indexes, key=lambda index: str(index.name))
        ),
    ]


def named_statements(table: sa.Table) -> dict[str, str]:
    """The DDL of each constraint and index, by kind and name, such as `index orders_status_idx`."""
    shadow = _in_schema(table, "build")
    constraints = {f"constraint {each.name}": AddConstraint(each) for each in _constraints(shadow)}
    indexes = {f"index {index.name}": CreateIndex(index) for index in shadow.indexes}
    return {name: _text(element) for name, element in (constraints | indexes).items()}


def merge_statements(definition: Definition, schema: str) -> list[str]:
    """What fills the shadow from the states of all partitions, where its columns are reducers.

    The last INSERT's row count is the shadow's. Its memory is bounded by work_mem. A state that must be
    kept is left beside the shadow, one row a key.
    """
    if not definition.reduced:
        return []
    shadow, state = (_in_schema(table, schema) for table in (definition.table, definition.state))
    parts = definition.state.to_metadata(sa.MetaData(), schema=schema, name="migrator_parts")
    source = parts if definition.keeps_state else state
    keys = [source.columns[key.name] for key in definition.table.primary_key]
    merged = {
        column.name: element
        for each in definition.reduced
        for column, element in zip(
            each.state,
            each.reducer.merged([source.columns[c.name] for c in each.state]),
            strict=True,
        )
    }
    grouped = sa.select(*keys, *merged.values()).group_by(*keys)
    key_names = [key.name for key in keys]
    names = [*key_names, *(each.column.name for each in definition.reduced)]
    if not definition.keeps_state:
        return [_filled(shadow, [*key_names, *merged], grouped), _text(DropTable(state))]
    columns = sa.select(*(state.columns[name] for name in names))
    return [
        _renamed(state, parts),
        _text(CreateTable(state)),
        _filled(state, [*key_names, *merged], grouped),
        _filled(shadow, names, columns),
        _text(DropTable(parts)),
    ]


def text_of(expression: sa.ColumnElement[Any]) -> str:
    """An expression as PostgreSQL reads it, without parameters."""
    return str(expression.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


def _filled(table: sa.Table, names: list[str], select: sa.Select[Any]) -> str:
    insert = sa.insert(table).from_select(names, select, include_defaults=False)
    return str(insert.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


def _renamed(table: sa.Table, to: sa.Table) -> str:
    quoted = _DIALECT.identifier_preparer.format_table(table)
    return f"ALTER TABLE {quoted} RENAME TO {to.name}"


def type_names(table: sa.Table) -> dict[str, str]:
    """The columns and their types, as CREATE TABLE would write them."""
    return {c.name: c.type.compile(dialect=_DIALECT) for c in table.columns}


def _in_schema(table: sa.Table, schema: str) -> sa.Table:
    shadow = table.to_metadata(
        sa.MetaData(naming_convention=table.metadata.naming_convention), schema=schema
    )
    for column in shadow.primary_key:
        # The log gives the key; a serial would be SQLAlchemy's guess for any integer one.
        column.autoincrement = False
    return shadow


def _constraints(table: sa.Table) -> list[sa.Constraint]:
    others = [c for c in table.constraints if c is not table.primary_key]
    return [table.primary_key, *sorted(others, key=lambda c: str(c.name))]


def _text(element: ExecutableDDLElement) -> str:
    try:
        return str(element.compile(dialect=_DIALECT)).strip()
    except CompileError as exc:
        raise DefinitionError(f"a projection's table cannot be made: {exc}") from exc
