"""The SQLAlchemy connection that revisions run on: ours to open, to reset and to guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg import OperationalError
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from migrator.migrations import scripts
from migrator.migrations.lookout import Lookout
from migrator.postgres.connect import Connection, connect
from migrator.settings import Settings


class EndsTransaction(Exception):
    """A revision would commit or roll back by a statement of its own."""


@contextmanager
def opened(
    settings: Settings,
    purpose: str,
    *,
    statement_timeout_ms: int | None = None,
    lookout: Lookout | None = None,
) -> Iterator[sa.Connection]:
    """Open one session with the settings' timeouts, which refuses COMMIT as a statement.

    Nothing has run on it that Alembic could take for somebody else's transaction. `lookout` is asked
    before each statement. A connection that is lost comes back with `reset`.
    """

    def creator() -> Connection:
        conn = connect(settings, purpose, statement_timeout_ms=statement_timeout_ms)
        # `reset` discards prepared statements, which psycopg would go on using.
        conn.prepare_threshold = None
        return conn

    engine = sa.create_engine("postgresql+psycopg://", creator=creator, poolclass=NullPool)
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", _guard)
        event.listen(connection, "commit", _guard_commit)
        event.listen(connection, "before_cursor_execute", _percent_signs, retval=True)
        if lookout is not None:
            _post(lookout, connection)
        yield connection


def _post(lookout: Lookout, connection: sa.Connection) -> None:
    def before(_conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        lookout.before(cursor.connection, statement)

    def after(_conn: Any, cursor: Any, *_: Any) -> None:
        lookout.after(cursor.connection)

    event.listen(connection, "before_cursor_execute", before)
    event.listen(connection, "after_cursor_execute", after)
    lookout.joined(connection)


def driver(connection: sa.Connection) -> Connection:
    """The psycopg connection beneath."""
    raw: Any = connection.connection.driver_connection
    assert raw is not None
    conn: Connection = raw
    return conn


@contextmanager
def autocommit(conn: Connection) -> Iterator[Connection]:
    """Use an idle connection without a transaction for the block."""
    conn.autocommit = True
    try:
        yield conn
    finally:
        if not conn.broken:
            conn.autocommit = False


def reset(connection: sa.Connection) -> None:
    """Take back what the last revision SET, LISTENed to or left in temporary tables.

    The timeouts return to those that the session was opened with. A lost connection is opened anew.
    """
    roll_back(connection)
    conn = driver(connection)
    # Beneath psycopg: its autocommit, switched on and off for one statement, costs more than that.
    result = conn.pgconn.exec_(b"DISCARD ALL")
    if result.status != ExecStatus.COMMAND_OK:
        failed = error_from_result(result, encoding=conn.info.encoding)
        if conn.closed:
            raise OperationalError(f"the connection is lost: {failed}") from failed
        raise failed


def roll_back(connection: sa.Connection) -> None:
    """End the transaction; where its connection is lost, that has happened already."""
    if not connection.invalidated and driver(connection).closed:
        connection.invalidate()
    connection.rollback()
    if not connection.invalidated:
        driver(connection).rollback()


def backend_pid(connection: sa.Connection) -> int:
    """The server's process behind an idle session; a proxy may have told libpq another number."""
    if "backend_pid" not in connection.info:
        with autocommit(driver(connection)) as conn:
            row = conn.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            connection.info["backend_pid"] = row[0]
    pid: int = connection.info["backend_pid"]
    return pid


@contextmanager
def recorded(connection: sa.Connection) -> Iterator[list[str]]:
    """Note every statement that SQLAlchemy sends on the connection during the block, in order.

    What goes past SQLAlchemy, by the driver's own cursor, is not seen.
    """
    statements: list[str] = []
    connection.info[_RECORDED] = statements
    try:
        yield statements
    finally:
        _forget(connection, _RECORDED)


@contextmanager
def unguarded(connection: sa.Connection) -> Iterator[None]:
    """Let a revision commit by a statement of its own for the block, as plain Alembic does."""
    connection.info[_UNGUARDED] = True
    try:
        yield
    finally:
        _forget(connection, _UNGUARDED)


@contextmanager
def kept_inside(connection: sa.Connection) -> Iterator[None]:
    """Let no call of commit() end the transaction during the block."""
    connection.info[_INSIDE] = True
    try:
        yield
    finally:
        _forget(connection, _INSIDE)


def _forget(connection: sa.Connection, name: str) -> None:
    # What was kept beside a connection that is lost is lost with it.
    if not connection.invalidated:
        connection.info.pop(name, None)


_UNGUARDED = "migrator_unguarded"
_RECORDED = "migrator_recorded"
_INSIDE = "migrator_inside"


def _guard_commit(conn: sa.Connection) -> None:
    if not conn.invalidated and _INSIDE in conn.info:
        raise EndsTransaction("commit() of its connection")


def _guard(conn: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
    if _RECORDED in conn.info:
        conn.info[_RECORDED].append(statement)
    if scripts.controls_transaction(statement) and _UNGUARDED not in conn.info:
        raise EndsTransaction(scripts.first_line(statement))


def _percent_signs(
    _conn: Any, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
) -> tuple[str, Any]:
    """Take a driver's SQL without parameters as asyncpg does: its percent signs mean themselves.

    Psycopg would refuse such a statement, so nothing that works with psycopg is changed.
    """
    is_raw = context is None or context.compiled is None
    if is_raw and not parameters and "%" in statement.replace("%%", ""):
        return statement.replace("%", "%%"), parameters
    return statement, parameters
