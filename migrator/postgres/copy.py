"""Write rows by COPY in text format: one function per table, made of its columns' types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from migrator.postgres.connect import Connection

NULL = r"\N"
CHUNK_ROWS = 4000

_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}

Formatter = Callable[[Any], str]


def copy_rows(
    conn: Connection,
    table: sql.Composable,
    columns: Iterable[str],
    lines: Iterable[str],
) -> int:
    """COPY ready-made lines into the columns, in the caller's transaction; returns how many rows."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for chunk in _chunks(lines):
                copy.write(chunk)
        return cursor.rowcount


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    held: list[str] = []
    for line in lines:
        held.append(line)
        if len(held) == CHUNK_ROWS:
            yield "".join(held).encode()
            held.clear()
    yield "".join(held).encode()


def line_formatter(columns: Iterable[tuple[str, sa.types.TypeEngine[Any]]]) -> Formatter:
    """Make `row -> line` for rows whose attributes hold the columns' values, in this order.

    Written as straight-line code: it runs once a row.
    """
    known: dict[str, Any] = {"NULL": NULL}
    fields = []
    for number, (attribute, type_) in enumerate(columns):
        known[f"format_{number}"] = value_formatter(type_)
        fields.append(f"{{NULL if (v := row.{attribute}) is None else format_{number}(v)}}")
    source = "def line(row):\n    return f'" + "\\t".join(fields) + "\\n'\n"
    exec(source, known)  # noqa: S102 - attribute names are identifiers of the user's class
    formatter: Formatter = known["line"]
    return formatter


def value_formatter(type_: sa.types.TypeEngine[Any]) -> Formatter:
    """Make `value -> COPY text` for a column type; the value is never None."""
    if isinstance(type_, sa.ARRAY):
        element = _element(type_.item_type)
        return lambda value: escaped("{" + ",".join(map(element, value)) + "}")
    for kinds, formatter in _FORMATTERS:
        if isinstance(type_, kinds):
            return formatter
    return lambda value: escaped(str(value))


_FORMATTERS: tuple[tuple[tuple[type, ...], Formatter], ...] = (
    ((sa.Boolean,), lambda value: "t" if value else "f"),
    (
        (sa.JSON, postgresql.JSONB),
        lambda value: escaped(json.dumps(value, ensure_ascii=False, default=str)),
    ),
    ((sa.LargeBinary,), lambda value: rf"\\x{bytes(value).hex()}"),
    ((sa.Enum,), lambda value: escaped(str(getattr(value, "name", value)))),
    ((sa.Integer, sa.Numeric, sa.Uuid), str),
    (
        (sa.DateTime, sa.Date, sa.Time),
        lambda value: value if isinstance(value, str) else value.isoformat(),
    ),
)


def _element(type_: sa.types.TypeEngine[Any]) -> Formatter:
    if isinstance(type_, sa.Integer | sa.Numeric):
        return lambda value: "NULL" if value is None else str(value)

    def quoted(value: Any) -> str:
        if value is None:
            return "NULL"
        text = value.isoformat() if hasattr(value, "isoformat") else str(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return quoted


def escaped(text: str) -> str:
    """Escape what COPY's text format gives a meaning."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], text)
