"""Bring the build that is to be live up to what the live one has read, before readers see it.

A build keeps its own positions, so a swap loses nothing whatever they are; but a build that is behind
would show readers an older state, until its projector has caught up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from migrator.errors import Overtaken, UsageError
from migrator.logs import logger
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.build import Build
from migrator.projections.catch_up import Until, catch_up
from migrator.projections.definition import Definition
from migrator.projections.move import Move

if TYPE_CHECKING:
    from migrator.settings import Settings

TRIES = 5


def reached(conn: Connection, of: Build, topics_of: Build) -> Until:
    """How far a build has read those topics that the other one was made from as well; read-only."""
    ids = {(p.topic, p.topic_id) for p in builds.positions(conn, topics_of.build)}
    return {
        (p.topic, p.partition): p.next_offset
        for p in builds.positions(conn, of.build)
        if (p.topic, p.topic_id) in ids
    }


def behind(conn: Connection, move: Move) -> int:
    """How many offsets the incoming build lacks that the outgoing one has read; read-only."""
    if move.outgoing is None:
        return 0
    until = reached(conn, move.outgoing, move.incoming)
    held = builds.positions(conn, move.incoming.build)
    return sum(max(until.get((p.topic, p.partition), 0) - p.next_offset, 0) for p in held)


def with_definitions(settings: Settings, moves: Iterable[Move]) -> list[Move]:
    """The moves, with the definition of each incoming build that this checkout has."""
    moves = list(moves)
    try:
        known = registry.load(settings.projections_dir)
    except UsageError as exc:
        logger().warning("no definition is at hand", cause=exc.found)
        return moves
    at_hand = {(name, each.hash): each.definition for name, each in known.items()}
    return [
        replace(m, definition=at_hand.get((m.incoming.projection, m.incoming.definition_hash)))
        for m in moves
    ]


def bring(conn: Connection, settings: Settings, moves: Sequence[Move]) -> int:
    """Apply to the incoming builds what they lack, batch by batch; returns how many events.

    Where a definition is not at hand, its build stays where it is.

    Raises:
        MigratorError: a topic cannot be read, or an event cannot be folded; it names where it lies.
    """
    return sum(
        _bring(conn, settings, move.incoming, move.definition, move.outgoing)
        for move in moves
        if move.definition is not None and move.outgoing is not None
    )


def bring_inside(conn: Connection, settings: Settings, moves: Sequence[Move]) -> int:
    """The same in the caller's transaction, which has the projections' locks for itself."""
    return sum(
        catch_up(
            conn,
            settings,
            move.incoming,
            move.definition,
            move.incoming.table,
            reached(conn, move.outgoing, move.incoming),
            in_transaction=True,
        )
        for move in moves
        if move.definition is not None and move.outgoing is not None
    )


def bring_live(conn: Connection, settings: Settings, moves: Sequence[Move]) -> int:
    """After the moves: apply to the builds that are live now what those before them had read.

    Their projectors may do so at the same time; either does the other's work.

    Raises:
        As `bring`.
    """
    return sum(
        _bring(conn, settings, move.incoming, move.definition, move.outgoing, is_live=True)
        for move in moves
        if move.definition is not None and move.outgoing is not None
    )


def _bring(
    conn: Connection,
    settings: Settings,
    incoming: Build,
    definition: Definition,
    outgoing: Build,
    *,
    is_live: bool = False,
) -> int:
    table = incoming.target if is_live else incoming.table
    for tried in range(1, TRIES + 1):
        until = reached(conn, outgoing, incoming)
        try:
            return catch_up(conn, settings, incoming, definition, table, until)
        except Overtaken:
            if tried == TRIES:
                raise
    return 0
