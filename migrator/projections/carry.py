"""Carry what hangs on a live table over to the build that replaces it: before, during, after the swap."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from migrator.errors import Refused
from migrator.logs import logger
from migrator.postgres import attached, catalog
from migrator.postgres.attached import Attached, Reference, Shape
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.move import Move, incoming_table


@dataclass(frozen=True)
class Unvalidated:
    """A foreign key that stands since the swap, for new rows alone: `cause` is what its rows break."""

    statement: str
    cause: str


def prepare(conn: Connection, live: Build, incoming: Build) -> list[str]:
    """Give the incoming table what the live one has beyond its definition; returns what was run.

    All or nothing, idempotent; outside the swap, so that indexes may take their time.

    Raises:
        Refused: something that was added by hand does not hold on the new rows.
    """
    with conn.transaction():
        statements = preparations(conn, live, incoming)
        if not statements:
            return []
        conn.execute("SET LOCAL lock_timeout = '10s'; SET LOCAL maintenance_work_mem = '512MB'")
        for statement in statements:
            logger().info("giving the new table what the live one has", statement=statement)
        try:
            conn.execute(_script(statements))
        except psycopg.errors.IntegrityError as exc:
            raise Refused(
                f"what was added to {live.target_schema}.{live.table_name} by hand does not hold on "
                f"the new rows: {exc.diag.message_primary}",
                expected="rows that keep to it",
                next_step=f"drop {exc.diag.constraint_name or 'it'}, or correct the projection",
                detail=exc.diag.message_detail,
            ) from exc
        conn.execute(sql.SQL("ANALYZE {}").format(incoming.table))
    # Whoever's snapshot is older than this is waited for before the swap.
    conn.execute(
        "UPDATE migrator.build SET changed_at = clock_timestamp() WHERE build = %s",
        (incoming.build,),
    )
    return statements


def let_read(conn: Connection, live: Build, incoming: Build) -> None:
    """Let those who read the live table read the incoming one by its own schema; idempotent."""
    source = catalog.table_oid(conn, live.target)
    if source is None:
        return
    with conn.transaction():
        for statement in catalog.reader_statements(conn, source, incoming.schema):
            conn.execute(statement.encode())


def preparations(conn: Connection, live: Build, incoming: Build) -> list[str]:
    """What `prepare` has still to run; read-only. Nothing where the live table was dropped by hand."""
    source, target = catalog.table_oid(conn, live.target), catalog.table_oid(conn, incoming.table)
    if source is None or target is None:
        return []
    made = builds.made(conn, live)
    with attached.qualified(conn):
        columns = attached.shape(conn, target)
        names = made.names if made else []
        return attached.before(conn, source, target, incoming.schema, columns, names)


def added_by_hand(conn: Connection, live: Build, incoming: Build) -> list[str]:
    """What was added to the live table by hand, and whether it goes along; for a person, read-only."""
    source, target = catalog.table_oid(conn, live.target), catalog.table_oid(conn, incoming.table)
    made = builds.made(conn, live)
    if source is None or target is None or made is None:
        return []
    with attached.qualified(conn):
        left = attached.misfits(conn, source, attached.shape(conn, target), made.names)
    rows = conn.execute(
        """SELECT relname FROM pg_index JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = %(t)s
           UNION SELECT conname FROM pg_constraint
                  WHERE conrelid = %(t)s AND contype IN ('c', 'p', 'u', 'x') ORDER BY 1""",
        {"t": target},
    ).fetchall()
    ours = builds.made(conn, incoming)
    carried = [name for (name,) in rows if ours and name not in ours.names]
    return [f"{name}, which was added by hand, went along" for name in carried] + [
        f"{m.object} stayed behind: its column {m.column} {m.becomes}" for m in left if m.left
    ]


def foreseen(
    conn: Connection, live: Build, table: int, schema: str, columns: Shape
) -> tuple[list[str], Attached]:
    """`preparations` and `captured` for a table that `schema` does not have yet; read-only.

    `table` is the live one's oid.
    """
    made = builds.made(conn, live)
    names = made.names if made else []
    with attached.qualified(conn):
        return (
            attached.before(conn, table, None, schema, columns, names),
            attached.during(conn, table, None, parked=live.schema, schema=schema, columns=columns),
        )


def captured(conn: Connection, move: Move) -> Attached:
    """The statements that carry everything over in the swap; read-only."""
    live = catalog.table_oid(conn, move.incoming.target)
    if live is None or move.outgoing is None:
        return Attached()
    incoming = incoming_table(conn, move.incoming)
    with attached.qualified(conn):
        return attached.during(
            conn,
            live,
            incoming,
            parked=move.outgoing.schema,
            schema=move.incoming.schema,
            columns=attached.shape(conn, incoming),
        )


def refuse_orphans(conn: Connection, moves: list[Move]) -> None:
    """Look whether the foreign keys around the tables will hold on the new rows; read-only.

    Raises:
        Refused: some rows would refer to nothing; the message counts them and names one.
    """
    names = {
        catalog.table_oid(conn, move.incoming.target): move.incoming.table
        for move in moves
        if move.outgoing
    }
    for oid in [oid for oid in names if oid is not None]:
        for reference in attached.references(conn, oid):
            _refuse_orphans(conn, reference, names)


def _refuse_orphans(
    conn: Connection, reference: Reference, names: dict[int | None, sql.Identifier]
) -> None:
    child, parent = (
        names.get(oid) or catalog.table_name(conn, oid)
        for oid in (reference.child, reference.parent)
    )
    pairs = list(zip(reference.columns, reference.keys, strict=True))
    query = sql.SQL(
        "SELECT count(*), min(row({columns})::text) FROM {child} AS c WHERE {given} "
        "AND NOT EXISTS (SELECT FROM {parent} AS p WHERE {equal})"
    ).format(
        columns=sql.SQL(", ").join(sql.Identifier("c", column) for column, _ in pairs),
        child=child,
        given=sql.SQL(" AND ").join(
            sql.SQL("{} IS NOT NULL").format(sql.Identifier("c", column)) for column, _ in pairs
        ),
        parent=parent,
        equal=sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("p", key), sql.Identifier("c", column))
            for column, key in pairs
        ),
    )
    try:
        with conn.transaction():
            conn.execute("SET LOCAL row_security = off")  # an error rather than a part of the rows
            row = conn.execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege as exc:
        logger().info("a foreign key is not looked at before the swap", cause=str(exc).strip())
        return
    if row and row[0]:
        raise Refused(
            f"{row[0]:,} rows of {child.as_string()} would refer to nothing in {parent.as_string()} "
            f"by foreign key {reference.name}, such as {row[1]}",
            expected="none: the foreign key is valid on the live table",
            next_step="correct the projection or these rows, then run the same command again; or drop "
            "the foreign key",
        )


def validate(conn: Connection, statements: list[str]) -> list[Unvalidated]:
    """Check the foreign keys' rows, while readers and writers go on; what fails is returned."""
    failed = []
    for statement in statements:
        try:
            with conn.transaction():
                conn.execute("SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = 0")
                conn.execute(statement.encode())
        except psycopg.Error as exc:
            cause = (exc.diag.message_detail or exc.diag.message_primary or str(exc)).strip()
            failed.append(Unvalidated(statement, cause))
            logger().warning("a foreign key is not validated", statement=statement, cause=cause)
    return failed


def _script(statements: list[str]) -> bytes:
    return ";\n".join(statements).encode()
