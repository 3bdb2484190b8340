"""Which locks on tables a statement asks for, and for whom it waits; pure.

Rows aside: an UPDATE waits for rows, and no table lock says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pglast import ast

from migrator.migrations import scripts
from migrator.migrations.lint.locks import Mode, locks
from migrator.postgres.blockers import Want

# Most statements of most revisions; they are not worth parsing, the data they carry even less.
_DATA = re.compile(
    r"\s*(insert|update|delete|select|with|values|copy|show|set|reset)\b", re.IGNORECASE
)
# Nor is a table that names no other: nobody else sees it yet.
_MAKES = re.compile(
    r"\s*create\s+table\s(?!.*\b(?:references|inherits|partition|as|like|of)\b)[^;]*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES = re.compile(r"\s*(insert|update|delete|merge|with|copy|do|call|execute)\b", re.IGNORECASE)


def of(sql: str) -> tuple[Want, ...]:
    """The locks on tables that the SQL asks for, in its order; empty where it cannot be parsed."""
    if _DATA.match(sql) or _MAKES.fullmatch(sql):
        return ()
    try:
        statements = scripts.parsed(sql)
    except ValueError:
        return ()
    return tuple(want for statement in statements for want in _of_statement(statement))


def changes_rows(sql: str) -> bool:
    """Whether the SQL may lock rows until its transaction ends, by its first word."""
    return _CHANGES.match(sql) is not None


def _of_statement(statement: ast.Node) -> Iterator[Want]:
    for lock in locks(statement):
        if lock.mode < Mode.SHARE_UPDATE_EXCLUSIVE:
            continue
        relation = ".".join('"' + part.replace('"', '""') + '"' for part in lock.table.split("."))
        # CONCURRENTLY also waits for whoever writes, or reads, the table and for old snapshots.
        waits_for, snapshots = lock.mode, False
        if isinstance(statement, ast.IndexStmt) and statement.concurrent:
            waits_for, snapshots = Mode.SHARE, True
        elif isinstance(statement, ast.DropStmt) and statement.concurrent:
            waits_for = Mode.ACCESS_EXCLUSIVE
        elif isinstance(statement, ast.ReindexStmt) and lock.mode == Mode.SHARE_UPDATE_EXCLUSIVE:
            waits_for, snapshots = Mode.ACCESS_EXCLUSIVE, True
        yield Want(
            relation,
            conflicts=CONFLICTS[waits_for],
            blocks_nobody=not lock.mode.blocks_writers,
            snapshots=snapshots,
        )


def spelled(mode: Mode) -> str:
    """The mode as pg_locks spells it."""
    return "".join(part.capitalize() for part in mode.name.split("_")) + "Lock"


def _names(*modes: Mode) -> tuple[str, ...]:
    return tuple(map(spelled, modes))


# PostgreSQL's documentation, 13.3, "Conflicting Lock Modes".
CONFLICTS = {
    Mode.SHARE_UPDATE_EXCLUSIVE: _names(*(m for m in Mode if m >= Mode.SHARE_UPDATE_EXCLUSIVE)),
    Mode.SHARE: _names(*(m for m in Mode if m >= Mode.ROW_EXCLUSIVE and m != Mode.SHARE)),
    Mode.SHARE_ROW_EXCLUSIVE: _names(*(m for m in Mode if m >= Mode.ROW_EXCLUSIVE)),
    Mode.EXCLUSIVE: _names(*(m for m in Mode if m >= Mode.ROW_SHARE)),
    Mode.ACCESS_EXCLUSIVE: _names(*Mode),
}
