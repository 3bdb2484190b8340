"""Keep the scratch build inside its database: what all databases of a server share stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from pglast import ast, enums
from sqlalchemy import event

from migrator.migrations import scripts, session
from migrator.postgres.connect import Connection


class ReachesOut(Exception):
    """A revision would change what all databases of the server share, where it cannot be left out."""


def keep(
    connection: sa.Connection, *, passed: Callable[[str], object] = lambda _statement: None
) -> None:
    """Pass over statements that act on the whole server, and refuse to commit what such a one did.

    A statement of a revision is left out by its syntax tree. What a DO block or a function does is
    only seen in its effects, before the commit; where it commits by itself, its text must do.
    `passed` hears of each statement that is passed over.

    Raises (from the connection):
        ReachesOut: nothing of that transaction is kept.
    """

    def stay(
        conn: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        return _stay(conn, statement, parameters, passed)

    event.listen(connection, "before_cursor_execute", stay, retval=True)
    event.listen(connection, "commit", _check)


def reaches_out(statement: str) -> bool:
    """Whether a statement acts on what all databases of the server share; pure."""
    return bool(_MAY_REACH_OUT.search(statement)) and any(map(_reaches_out, _nodes(statement)))


def check(conn: Connection) -> None:
    """Refuse to go on in a transaction that has written what all databases of the server share.

    Raises:
        ReachesOut: it has, by a DO block or a function.
    """
    row = conn.execute(_TOUCHED).fetchone()
    if row is not None and row[0] is not None:
        raise ReachesOut(f"it writes {row[0]}")


_OUTSIDE = (
    ast.CreateRoleStmt,
    ast.AlterRoleStmt,
    ast.AlterRoleSetStmt,
    ast.DropRoleStmt,
    ast.GrantRoleStmt,
    ast.ReassignOwnedStmt,
    ast.DropOwnedStmt,
    ast.CreatedbStmt,
    ast.AlterDatabaseStmt,
    ast.AlterDatabaseSetStmt,
    ast.AlterDatabaseRefreshCollStmt,
    ast.DropdbStmt,
    ast.AlterSystemStmt,
    ast.CreateTableSpaceStmt,
    ast.AlterTableSpaceOptionsStmt,
    ast.DropTableSpaceStmt,
    ast.CreateSubscriptionStmt,
    ast.AlterSubscriptionStmt,
    ast.DropSubscriptionStmt,
)
_MAY_REACH_OUT = re.compile(
    r"\b(role|user|group|database|system|tablespace|subscription|grant|revoke|reassign|owned)\b",
    re.IGNORECASE,
)
_SHARED = {
    enums.ObjectType.OBJECT_DATABASE,
    enums.ObjectType.OBJECT_ROLE,
    enums.ObjectType.OBJECT_TABLESPACE,
    enums.ObjectType.OBJECT_SUBSCRIPTION,
    enums.ObjectType.OBJECT_PARAMETER_ACL,
}
_TOUCHED = b"""
SELECT string_agg(c.relname, ', ' ORDER BY c.relname)
FROM pg_stat_xact_sys_tables AS t JOIN pg_class AS c ON c.oid = t.relid
WHERE c.relisshared AND c.relname <> 'pg_shdepend'  -- which tells of owners and privileges here
  AND t.n_tup_ins + t.n_tup_upd + t.n_tup_del > 0
"""


def _stay(
    conn: sa.Connection, statement: str, parameters: Any, passed: Callable[[str], object]
) -> tuple[str, Any]:
    """Take out of a text the statements that act on the whole server, not on this database."""
    if scripts.controls_transaction(statement):
        _check(conn)
    if not _MAY_REACH_OUT.search(statement):
        return statement, parameters
    parts = scripts.split(statement)
    nodes = [(text, _nodes(text)) for text in parts]
    if session.driver(conn).autocommit and any(_is_hidden(n) for _, found in nodes for n in found):
        raise ReachesOut("it may, by a DO block that commits by itself")
    kept = [text for text, found in nodes if not any(map(_reaches_out, found))]
    if len(kept) == len(parts):
        return statement, parameters
    for text in parts:
        if text not in kept:
            passed(text)
    # A SELECT of nothing is a statement that does nothing.
    return ";\n".join(kept) or "SELECT", parameters


def _nodes(text: str) -> list[Any]:
    try:
        return scripts.parsed(text)
    except ValueError:
        return []


def _is_hidden(node: Any) -> bool:
    return isinstance(node, ast.DoStmt | ast.CallStmt)


def _reaches_out(node: Any) -> bool:
    if isinstance(node, _OUTSIDE):
        return True
    kinds = {getattr(node, name, None) for name in ("objtype", "objectType", "renameType")}
    return bool(kinds & _SHARED)


def _check(conn: sa.Connection) -> None:
    if conn.invalidated or session.driver(conn).closed:
        return
    check(session.driver(conn))
