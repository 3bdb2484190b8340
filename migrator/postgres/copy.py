r"""Write rows by COPY, each value so that PostgreSQL reads back the same.

msgspec writes a row as a JSON array, in C, which without its brackets is a line of CSV: strings are
quoted, numbers bare, and `null` unquoted is NULL. Of JSON's escapes CSV shares two, \" and \\; a row with
any other (a line break, a control character) is written by our own code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from migrator.postgres.connect import Connection

CHUNK_ROWS = 4000

Columns = Iterable[tuple[str, sa.types.TypeEngine[Any]]]
Values = tuple[Any, ...]

_encoder = msgspec.json.Encoder()


def copy_rows(
    conn: Connection,
    table: sql.Composable,
    names: Iterable[str],
    columns: Columns,
    rows: Iterable[Any],
) -> int:
    """COPY the rows into the named columns, in the caller's transaction; returns how many.

    `columns` are the attributes that hold the values, with their columns' types, in the order of
    `names`.
    """
    statement = sql.SQL(r"COPY {} ({}) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE E'\\')").format(
        table, sql.SQL(", ").join(map(sql.Identifier, names))
    )
    values = row_values(columns)
    with conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for chunk in _chunks(rows):
                copy.write(_csv_lines([values(row) for row in chunk]))
        return cursor.rowcount


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(rows)
    while chunk := list(islice(left, CHUNK_ROWS)):
        yield chunk


def _csv_lines(rows: Sequence[Values]) -> bytes:
    """Write the rows as CSV in which NULL is `null` and the escape character a backslash."""
    # A line break within a value is escaped: "]\n[" stands between two rows, and nowhere else.
    lines = _encoder.encode_lines(rows)[1:-2].replace(b"]\n[", b"\n") + b"\n"
    return lines if b"\\" not in lines else b"".join(map(_line, rows))


def _line(row: Values) -> bytes:
    line = _encoder.encode(row)[1:-1]
    if b"\\" in line.replace(b"\\\\", b"").replace(b'\\"', b""):
        line = ",".join(map(_field, row)).encode()
    return line + b"\n"


def _field(value: Any) -> str:
    if value is None:
        return "null"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def row_values(columns: Columns) -> Callable[[Any], Values]:
    """Make `row -> values` for rows whose attributes hold the columns' values, in this order.

    The values are what msgspec writes as PostgreSQL reads it. Written as straight-line code: it runs
    once a row, and a value of the usual class is taken as it is.
    """
    known: dict[str, Any] = {"UTC": UTC}
    fields = []
    for number, (attribute, type_) in enumerate(columns):
        usual, other = _treatment(type_)
        known[f"other_{number}"] = lambda value, other=other: (
            None if value is None else other(value)
        )
        if usual is None:
            fields.append(f"other_{number}(row.{attribute})")
        else:
            known[f"usual_{number}"] = usual
            also = " and v.tzinfo is UTC" if usual is datetime else ""
            fields.append(
                f"v if (v := row.{attribute}).__class__ is usual_{number}{also} else other_{number}(v)"
            )
    exec(f"def values(row):\n    return ({', '.join(fields)},)\n", known)  # noqa: S102 - attribute names are identifiers of the user's class
    values: Callable[[Any], Values] = known["values"]
    return values


def _iso(value: Any) -> str:
    return value if isinstance(value, str) else str(value.isoformat())


_TREATMENTS: tuple[tuple[tuple[type, ...], type | None, Callable[[Any], Any]], ...] = (
    ((sa.Boolean,), bool, bool),
    (
        (sa.JSON, postgresql.JSONB),
        None,
        lambda value: json.dumps(value, ensure_ascii=False, default=str),
    ),
    ((sa.LargeBinary,), None, lambda value: rf"\x{bytes(value).hex()}"),
    ((sa.Enum,), None, lambda value: str(getattr(value, "name", value))),
    ((sa.Integer,), int, str),
    # msgspec would write NaN as null.
    ((sa.Float,), None, str),
    ((sa.Numeric,), Decimal, str),
    ((sa.Uuid,), UUID, str),
    # An offset of seconds is more than msgspec writes.
    ((sa.DateTime,), datetime, _iso),
    ((sa.Date,), date, _iso),
    ((sa.Time,), None, _iso),
)


def _treatment(
    type_: sa.types.TypeEngine[Any],
) -> tuple[type | None, Callable[[Any], Any]]:
    """The class that is taken as it is, and what is done to a value of another, never None."""
    if isinstance(type_, sa.ARRAY):
        element = _element(type_.item_type)
        return None, lambda value: "{" + ",".join(map(element, value)) + "}"
    for kinds, usual, other in _TREATMENTS:
        if isinstance(type_, kinds):
            return usual, other
    return str, str


def _element(type_: sa.types.TypeEngine[Any]) -> Callable[[Any], str]:
    if isinstance(type_, sa.Integer | sa.Numeric):
        return lambda value: "NULL" if value is None else str(value)

    def quoted(value: Any) -> str:
        if value is None:
            return "NULL"
        text = value.isoformat() if hasattr(value, "isoformat") else str(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return quoted
