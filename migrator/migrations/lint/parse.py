"""Parse SQL into a script for the rules; pure."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from typing import Any

import pglast
from pglast import parser

from migrator.migrations.lint.model import Script, Statement

_COMMENTS = {"SQL_COMMENT", "C_COMMENT"}


class NotSQL(ValueError):
    """The text is no SQL that PostgreSQL would take; `line` counts from 1."""

    def __init__(self, said: str, line: int | None) -> None:
        self.said = said
        self.line = line
        super().__init__(said if line is None else f"{said} in line {line}")


def parse(sql: str, **known: Any) -> Script:
    """Return the script that `sql` is; `known` are the other fields of `Script`.

    A statement's text begins and ends with its own first and last token: comments around it and
    its semicolon are not part of it. Comments alone are a script without statements.

    Raises:
        NotSQL: with PostgreSQL's words and the line.
    """
    try:
        raws = pglast.parse_sql(sql)
        tokens = [token for token in parser.scan(sql) if token.name not in _COMMENTS]
    except parser.ParseError as exc:
        raise _placed(exc, sql) from None
    starts, ends = [token.start for token in tokens], [token.end for token in tokens]
    newlines = [at for at, character in enumerate(sql) if character == "\n"]
    statements = []
    for raw in raws:
        begin = raw.stmt_location or 0
        after = begin + raw.stmt_len if raw.stmt_len else len(sql)
        first = starts[bisect_left(starts, begin)]
        last = ends[bisect_right(starts, after - 1) - 1]
        text = sql[first : last + 1].rstrip("; \t\r\n")
        assert raw.stmt is not None
        statements.append(Statement(raw.stmt, text, bisect_left(newlines, first) + 1))
    return dataclasses.replace(Script(()), statements=tuple(statements), **known)


def _placed(exc: parser.ParseError, sql: str) -> NotSQL:
    said, index = exc.args
    return NotSQL(said, None if index is None else sql.count("\n", 0, index) + 1)
