"""The swap as SQL: what runs under the locks, and the whole script that a dry run prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from psycopg import sql

from migrator.postgres import attached, catalog
from migrator.postgres.attached import Attached, Shape
from migrator.postgres.connect import Connection
from migrator.projections import carry, writers
from migrator.projections.build import Build
from migrator.projections.move import Move, incoming_table, refuse_attachments

if TYPE_CHECKING:
    from migrator.settings import Settings

AUTOVACUUM_TIMEOUT = "3s"  # longer than deadlock_timeout, whose passing makes autovacuum yield


def body(conn: Connection, moves: list[Move], carried: list[Attached]) -> list[str]:
    """What runs under the locks, in order; each once, although it may hang on several tables."""
    before = ["SET CONSTRAINTS ALL IMMEDIATE"]
    between: list[str] = []
    after: list[str] = []
    for move, each in zip(moves, carried, strict=True):
        incoming = move.incoming
        target, source = incoming_table(conn, incoming), incoming.table
        live = catalog.table_oid(conn, incoming.target) if move.outgoing else None
        before += each.drops
        if live is None:
            before += catalog.default_grant_statements(conn, target, incoming.target_schema)
        if move.outgoing:
            between += [set_schema(incoming.target, move.outgoing.schema), *each.parks]
        between += [set_schema(source, incoming.target_schema), *each.brings]
        if live is not None:
            between += catalog.grant_statements(conn, live, target)
        after += each.makes
    return [*once(before), *between, *once(after)]


def others(ours: Sequence[sql.Identifier], seen: list[Attached]) -> list[sql.Composable]:
    """The tables to lock beside ours, those that refer to ours first, as readers do."""
    names = {table.as_string() for table in ours}
    found = once([name for each in seen for name in each.tables])
    return [sql.SQL(name) for name in found if name not in names]


def script(conn: Connection, settings: Settings, moves: list[Move]) -> list[str]:
    """The whole swap as SQL, but for the rows of migrator's own; read-only. A dry run prints it.

    Raises:
        Refused: something on a live table cannot be carried over.
    """
    prepared = []
    for move in moves:
        shape = attached.shape(conn, incoming_table(conn, move.incoming))
        if move.outgoing and catalog.table_oid(conn, move.incoming.target) is not None:
            refuse_attachments(conn, move.outgoing, shape)
            prepared += carry.preparations(conn, move.outgoing, move.incoming)
    seen = [carry.captured(conn, move) for move in moves]
    ours = [table for move in moves for table in move.tables]
    tables = [*others(ours, seen), *ours]
    names = [move.incoming.projection for move in moves]
    return [*prepared, *_transaction(settings, names, tables, seen, body(conn, moves, seen))]


def _transaction(
    settings: Settings,
    projections: Iterable[str],
    tables: Sequence[sql.Composable],
    seen: list[Attached],
    body: list[str],
) -> list[str]:
    """The swap's transaction around its body, with its locks, and what follows it; pure."""
    names = [table.as_string() for table in tables]
    return [
        "BEGIN",
        "SET LOCAL search_path = ''",
        f"SET LOCAL lock_timeout = '{AUTOVACUUM_TIMEOUT}'",
        *(writers.exclusive(name).as_string() for name in sorted(set(projections))),
        "LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE",
        f"LOCK TABLE {', '.join(names)} IN SHARE UPDATE EXCLUSIVE MODE",
        f"SET LOCAL lock_timeout = {settings.projections.swap_lock_timeout_ms}",
        *once([view for each in seen for view in each.views]),
        *(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE" for name in names),
        *body,
        "COMMIT",
        *once([s for each in seen for s in each.validations]),
    ]


def foreseen(
    conn: Connection,
    settings: Settings,
    projection: str,
    live: Build | None,
    made: tuple[str, str],
    schema: str,
    columns: Shape,
) -> list[str]:
    """`script` for a table that is not `made` yet in (schema, name), to go to `schema`; read-only."""
    source = sql.Identifier(*made)
    moved = set_schema(source, schema)
    table = catalog.table_oid(conn, live.target) if live else None
    if live is None or table is None:
        return _transaction(settings, [projection], [source], [], [moved])
    prepared, carried = carry.foreseen(conn, live, table, made[0], columns)
    body = [
        "SET CONSTRAINTS ALL IMMEDIATE",
        *carried.drops,
        set_schema(live.target, live.schema),
        *carried.parks,
        moved,
        *carried.brings,
        *catalog.grant_statements(conn, table, None),
        *carried.makes,
    ]
    ours = [live.target, source]
    return [
        *prepared,
        *_transaction(settings, [projection], [*others(ours, [carried]), *ours], [carried], body),
    ]


def set_schema(table: sql.Identifier, schema: str) -> str:
    """The statement that moves the table there."""
    moved = sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(table, sql.Identifier(schema))
    return moved.as_string()


def once(statements: list[str]) -> list[str]:
    return list(dict.fromkeys(statements))
