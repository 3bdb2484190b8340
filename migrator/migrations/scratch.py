"""Build what the revisions produce, from empty, in a scratch database on the same server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from migrator.errors import MigratorError
from migrator.migrations import backfill, inside, normalise, retry, session
from migrator.migrations.contexts import Contexts
from migrator.migrations.history import History
from migrator.migrations.revision import Revision
from migrator.postgres import snapshot
from migrator.postgres.connect import Connection, connect
from migrator.postgres.snapshot import Snapshot
from migrator.postgres.together import together
from migrator.settings import Settings

PREFIX = "migrator_verify_"
STALE_S = 3600


class Impossible(Exception):
    """The scratch database cannot be had, or the revisions cannot be built in it; says why."""

    def __init__(self, why: str, next_step: str) -> None:
        super().__init__(why)
        self.next_step = next_step


Words = tuple[str, ...]


@dataclass(frozen=True)
class Produced:
    """What the revisions produce, and the words of each statement that each has sent."""

    snapshot: Snapshot
    sent: tuple[tuple[str, tuple[Words, ...]], ...]

    def last_touched(self, *names: str, of_table: bool = False) -> str | None:
        """The newest revision with a statement on all these names; None where there is none.

        `of_table` asks for statements that make or alter tables and columns.
        """
        wanted = {name.lower() for name in names}
        for revision, statements in reversed(self.sent):
            for words in statements:
                if wanted <= set(words if of_table else words[:_HEAD]) and (
                    not of_table or {"table", "column"} & set(words[1:4])
                ):
                    return revision
        return None


# A statement names what it makes or alters near its beginning; what follows may only use it.
_HEAD = 12


def produce(
    settings: Settings, files: History, revisions: Iterable[Revision], *, left_out: Iterable[str]
) -> Produced:
    """Apply the revisions to an empty database and read its catalog; the database is dropped again.

    The tables `left_out` count on neither side. upgrade() is called; its statements reach nothing
    outside the scratch database: those on roles, databases, tablespaces, subscriptions and the
    server's configuration are passed over.

    Raises:
        Impossible: the role may not create databases, the server is read-only, a revision fails, or
            one reaches out of its database in a way that cannot be passed over.
    """
    with _database(settings) as scratch:
        sent = tuple(_build(scratch, files, revisions))
        with connect(scratch, "verify scratch", statement_timeout_ms=0) as conn:
            made = version_tables(conn, settings)
            return Produced(snapshot.read(conn, left_out=[*left_out, *made]), sent)


def version_tables(conn: Connection, settings: Settings) -> list[str]:
    """Alembic's own table, as schema.table, in whichever schema it lies; read-only."""
    rows = conn.execute(
        """SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind = 'r' AND c.relname = %s""",
        (settings.migrations.version_table,),
    ).fetchall()
    return [name for (name,) in rows]


@contextmanager
def _database(settings: Settings) -> Iterator[Settings]:
    """Create the scratch database for the block; those that killed runs have left are dropped."""
    name = f"{PREFIX}{int(time.time())}_{secrets.token_hex(4)}"
    with connect(settings, "verify", autocommit=True, statement_timeout_ms=0) as conn:
        try:
            _drop_stale(conn)
            conn.execute(_create(conn, name))
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as exc:
            raise _not_to_be_had(exc, conn) from exc
        try:
            # Where names without a schema lead on the live database, they lead here.
            own = sql.Identifier(name)
            conn.execute(sql.SQL("ALTER DATABASE {} SET search_path FROM CURRENT").format(own))
            url = SecretStr(make_conninfo(settings.conninfo, dbname=name))
            database = settings.database.model_copy(update={"url": url})
            yield settings.model_copy(update={"database": database})
        finally:
            conn.execute(_drop(name))


def _create(conn: Connection, name: str) -> sql.Composed:
    """Sort and compare as the live database does: its encoding, collation and character types."""
    row = conn.execute(
        """SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database
           WHERE datname = current_database()"""
    ).fetchone()
    assert row is not None
    return sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    ).format(sql.Identifier(name), *(sql.Literal(value) for value in row))


def _drop(name: str) -> sql.Composed:
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))


def _drop_stale(conn: Connection) -> None:
    """The name says when it was made; one in use by a run that still goes on is left alone."""
    found = conn.execute(
        """SELECT datname FROM pg_database d
           WHERE datname ~ ('^' || %s || '[0-9]+_') AND pg_has_role(datdba, 'USAGE')
             AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)""",
        (PREFIX,),
    ).fetchall()
    for (name,) in found:
        if int(name.removeprefix(PREFIX).partition("_")[0]) < time.time() - STALE_S:
            conn.execute(_drop(name))


def _not_to_be_had(exc: psycopg.Error, conn: Connection) -> Impossible:
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return Impossible("the server is read-only", "run migrator verify against the primary")
    role = conn.info.user
    return Impossible(
        f"role {role} may not create the scratch database",
        f'ALTER ROLE "{role}" CREATEDB, or run migrator verify as a role that may',
    )


def _build(
    scratch: Settings, files: History, revisions: Iterable[Revision]
) -> Iterator[tuple[str, tuple[Words, ...]]]:
    contexts = Contexts(files)
    with session.opened(scratch, "verify scratch", statement_timeout_ms=0) as connection:
        inside.keep(connection)
        try:
            for revision in revisions:
                session.reset(connection)
                try:
                    sent = _migrate(connection, contexts, revision)
                except Exception as exc:
                    raise _failed(exc, revision) from exc
                yield revision.id, tuple(map(_words, sent))
        finally:
            contexts.close()


def _migrate(connection: sa.Connection, contexts: Contexts, revision: Revision) -> tuple[str, ...]:
    """Apply the revision and return its statements; a backfill has nothing to fill here."""
    sent: list[str] = []

    def upgrade(module: Any) -> None:
        with session.recorded(connection) as statements, backfill.received():
            module.upgrade()
        sent.extend(statements)

    with session.unguarded(connection) if revision.exempt else nullcontext():
        contexts.run(
            connection,
            revision,
            upgrade=upgrade,
            record=lambda stamp: together(session.driver(connection), *stamp),
            autocommit_block=None,
        )
    connection.rollback()
    return tuple(sent)


def _words(statement: str) -> Words:
    return tuple(word.strip('"').lower() for word in normalise.words(statement) or ())


def _failed(exc: Exception, revision: Revision) -> Impossible:
    cause = retry.driver_error(exc)
    said = retry.said(cause) if isinstance(exc, DBAPIError) else f"{type(exc).__name__}: {exc}"
    if isinstance(exc, MigratorError):
        said = exc.found
    if isinstance(exc, inside.ReachesOut):
        return Impossible(
            f"revision {revision.id} changes what all databases of the server share (roles, databases, "
            f"settings) from within a DO block or a function: {exc}; the scratch build was stopped "
            "before that was committed",
            "migrator verify --skip-drift checks the rest; in a revision that is not applied yet, let such "
            "a statement stand outside of the block, where it is passed over",
        )
    return Impossible(
        f"the revisions cannot be built from empty: {revision.id} fails there: {said}",
        "a revision that needs rows, or what no revision makes, cannot be checked for drift; "
        "migrator verify --skip-drift checks the rest",
    )
