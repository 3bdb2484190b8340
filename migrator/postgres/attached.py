"""What hangs on a live table, as the DDL that carries it over to the table that takes its place.

The text is printed before the swap with every name qualified; run again after the swap, the same
text means the new table, since that has the old one's name then. Nothing is parsed or rewritten.
Everything here is to be called within `qualified`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg

from migrator.postgres.connect import Connection

Shape = Mapping[str, str | None]


@dataclass(frozen=True)
class Hanging:
    """Something that no swap can carry: what it is, and what to do about it."""

    object: str
    remedy: str


@dataclass(frozen=True)
class Misfit:
    """Something that hangs on a column which the successor lacks, or has in another type.

    `left` is an index or the like that may stay behind together with its column.
    """

    object: str
    column: str
    becomes: str
    left: bool


@dataclass(frozen=True)
class Attached:
    """The statements that carry everything over, in the order they must run in.

    `views` lock one view each and change nothing; `tables` are the names of the tables to lock, those
    that refer to ours first. `drops` run before the move, `parks` and `brings` right after each half
    of it, `makes` then; `validations` after the commit, each in a transaction of its own.
    """

    views: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    parks: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    validations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """A foreign key between a live table and another: oids, and the columns on both sides."""

    child: int
    parent: int
    name: str
    columns: list[str]
    keys: list[str]


_FIELDS = {
    "views": "view",
    "tables": "lock",
    "drops": "drop",
    "parks": "out",
    "brings": "in",
    "makes": "make",
    "validations": "validate",
}


@contextmanager
def qualified(conn: Connection) -> Iterator[None]:
    """A transaction, or a part of one, in which the server prints every name in full."""
    inside = conn.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE
    before = conn.execute("SELECT current_setting('search_path')").fetchone()
    if inside and before in (("",), ('""',)):
        yield  # readers may be waiting: no savepoint
        return
    with conn.transaction():
        conn.execute("SELECT set_config('search_path', '', true)")
        yield
        conn.execute("SELECT set_config('search_path', %s, true)", before)


def shape(conn: Connection, table: int) -> dict[str, str | None]:
    """The table's columns with their types as `format_type` writes them; read-only."""
    rows = conn.execute(
        """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
           WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        (table,),
    )
    return dict(rows.fetchall())


def uncarried(conn: Connection, live: int) -> list[Hanging]:
    """Everything on the live table that a swap would lose or leave behind; read-only."""
    return [Hanging(*row) for row in _rows(conn, "uncarried", {"table": live})]


def misfits(conn: Connection, live: int, successor: Shape, made: list[str]) -> list[Misfit]:
    """Everything that could not stand on a table of the successor's columns; read-only."""
    columns, types = list(successor), list(successor.values())
    parameters = {"table": live, "columns": columns, "types": types, "made": made}
    return [Misfit(*row) for row in _rows(conn, "misfits", parameters)]


def before(
    conn: Connection,
    live: int,
    successor: int | None,
    schema: str,
    columns: Shape,
    made: list[str],
) -> list[str]:
    """The DDL that prepares the successor, of the same name in `schema`, which nobody reads; read-only.

    Settings, statistics, and the indexes and constraints that were added to the live table by hand,
    that is, beside those that its definition `made`. Only what still differs: run it, and there is
    nothing left.
    """
    parameters = {
        "from": live,
        "to": successor,
        "schema": schema,
        "columns": list(columns),
        "made": made,
    }
    return [statement for (statement,) in _rows(conn, "carried_before", parameters)]


def during(
    conn: Connection,
    live: int,
    successor: int | None,
    *,
    parked: str,
    schema: str,
    columns: Shape,
) -> Attached:
    """What the swap itself must run, `parked` the schema the live table goes to; read-only."""
    parameters = {
        "from": live,
        "to": successor,
        "parked": parked,
        "schema": schema,
        "columns": list(columns),
    }
    rows = _rows(conn, "carried_during", parameters)
    phases = {
        field: tuple(statement for said, statement in rows if said == phase)
        for field, phase in _FIELDS.items()
    }
    return Attached(**phases)


def marks(conn: Connection, tables: Sequence[int]) -> str:
    """A text that changes with anything that hangs on the tables, or with themselves; read-only."""
    ((text,),) = _rows(conn, "marks", {"tables": list(tables)})
    return text or ""


def references(conn: Connection, live: int) -> list[Reference]:
    """The valid foreign keys from, to and within the live table; read-only."""
    return [Reference(*row) for row in _rows(conn, "references", {"table": live})]


def _rows(conn: Connection, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    query = files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()
    return conn.execute(query, parameters).fetchall()
