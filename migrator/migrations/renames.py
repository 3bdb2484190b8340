"""Find what may be a rename: to a comparison it is a removal and an addition. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

_POSTGRESQL: Any = sa.create_mock_engine("postgresql+psycopg://", lambda *_: None).dialect


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A column or table that vanished while one of the same type appeared."""

    table: str | None
    old: str
    new: str
    vanished: ops.MigrateOperation
    appeared: ops.MigrateOperation

    def __str__(self) -> str:
        kind = "table" if self.table is None else f"column of {self.table}"
        return f"rename {kind}, {self.old} to {self.new}?"


def renames(operations: tuple[ops.MigrateOperation, ...]) -> list[Rename]:
    """Every pair that may be a rename; a vanished one may stand in several. Pure."""
    found = []
    for vanished in operations:
        for appeared in operations:
            rename = _column_rename(vanished, appeared) or _table_rename(vanished, appeared)
            if rename is not None:
                found.append(rename)
    return found


def _column_rename(vanished: Any, appeared: Any) -> Rename | None:
    if not (isinstance(vanished, ops.DropColumnOp) and isinstance(appeared, ops.AddColumnOp)):
        return None
    if (vanished.schema, vanished.table_name) != (appeared.schema, appeared.table_name):
        return None
    if _type(vanished.to_column()) != _type(appeared.column):
        return None
    return Rename(
        table=dotted(vanished.schema, vanished.table_name),
        old=vanished.column_name,
        new=appeared.column.name,
        vanished=vanished,
        appeared=appeared,
    )


def _table_rename(vanished: Any, appeared: Any) -> Rename | None:
    if not (isinstance(vanished, ops.DropTableOp) and isinstance(appeared, ops.CreateTableOp)):
        return None
    shapes = [{c.name: _type(c) for c in t.to_table().columns} for t in (vanished, appeared)]
    if vanished.schema != appeared.schema or shapes[0] != shapes[1]:
        return None
    return Rename(
        table=None,
        old=vanished.table_name,
        new=appeared.table_name,
        vanished=vanished,
        appeared=appeared,
    )


def _type(column: Any) -> str:
    return str(column.type.compile(dialect=_POSTGRESQL))


def place(operation: Any) -> tuple[str | None, str]:
    if isinstance(operation, ops.CreateForeignKeyOp):
        return operation.kw.get("source_schema"), operation.source_table
    return getattr(operation, "schema", None), getattr(operation, "table_name", "")


def dotted(schema: str | None, table: str) -> str:
    return f"{schema}.{table}" if schema else table
