"""Who may write a projection's rows: projectors share a lock, and a swap takes it for itself.

Every transaction that writes rows of a build first shares the lock of its projection, by
migrator.assert_writer, and looks afterwards which build is live. So a swap that holds it alone
finds nobody in the middle of a batch, and who comes later sees what it has done. The functions are those
of the ledger's schema, which a projector in any language calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from migrator.errors import Fenced, Overtaken
from migrator.postgres.connect import Connection

FENCED, NOT_LIVE, OVERTAKEN = "MG001", "MG002", "MG003"


@dataclass(frozen=True)
class Advance:
    """How far one partition is read: from `expected`, where it must stand, to `next_offset`."""

    topic: str
    partition: int
    expected: int
    next_offset: int
    events: int


def assert_writer(conn: Connection, projection: str, definition_hash: str) -> int:
    """Share the projection's lock until the transaction ends; returns the number of the live build.

    First in a READ COMMITTED transaction: what it reads afterwards is younger than any swap that it
    has waited for.

    Raises:
        Fenced: another definition is live, or nothing is.
    """
    try:
        row = conn.execute(
            "SELECT migrator.assert_writer(%s, %s)", (projection, definition_hash)
        ).fetchone()
    except psycopg.Error as exc:
        if exc.sqlstate in (FENCED, NOT_LIVE):
            raise Fenced(
                str(exc.diag.message_primary),
                expected=f"a live build of {projection} of this checkout's definition, "
                f"{definition_hash}",
                next_step="run the projector of the release that is live; a new release's waits for "
                "its cut-over with --wait",
                projection=projection,
            ) from exc
        raise
    assert row is not None
    number: int = row[0]
    return number


def share(conn: Connection, projection: str) -> None:
    """Share the projection's lock until the transaction ends, to write a build that is not live."""
    conn.execute(shared(projection))


def shared(projection: str) -> sql.Composed:
    return _lock("pg_advisory_xact_lock_shared", projection)


def exclusive(projection: str) -> sql.Composed:
    """The statement that waits for all writers of a projection and keeps others out.

    Until the transaction ends. It comes before every lock on a table: who waits for it holds none, so
    that readers go on. The session's lock_timeout bounds it; behind it new writers queue.
    """
    return _lock("pg_advisory_xact_lock", projection)


def exclude(conn: Connection, projections: Iterable[str]) -> None:
    """Run `exclusive` for each, in one order, so that two swaps cannot deadlock.

    Raises:
        psycopg.errors.LockNotAvailable: a writer did not end within the lock_timeout.
    """
    for projection in sorted(set(projections)):
        conn.execute(exclusive(projection))


def _lock(function: str, projection: str) -> sql.Composed:
    return sql.SQL("SELECT {}(hashtext('migrator:writer'), hashtext({}))").format(
        sql.SQL(function), sql.Literal(projection)
    )


def advance(conn: Connection, build: int, moves: Sequence[Advance]) -> None:
    """Move positions in the caller's transaction, in one order for all projectors.

    Raises:
        Overtaken: one is not where it is expected: another projector has moved it.
    """
    ordered = sorted(moves, key=lambda move: (move.topic, move.partition))
    with _overtaken(build), conn.cursor() as cursor:
        cursor.executemany(
            "SELECT migrator.advance(%s, %s, %s, %s, %s, %s)",
            [(build, m.topic, m.partition, m.expected, m.next_offset, m.events) for m in ordered],
        )


@contextmanager
def _overtaken(build: int) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        if exc.sqlstate != OVERTAKEN:
            raise
        raise Overtaken(
            str(exc.diag.message_primary),
            expected="one projector a partition",
            next_step="read migrator.position, and go on from there",
            build=build,
        ) from exc
