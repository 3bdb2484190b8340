"""What a swap moves: a build, and the live one that it replaces; and what forbids that, found early."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from migrator.errors import MigratorError, Refused
from migrator.postgres import attached, catalog
from migrator.postgres.attached import Hanging, Shape
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.definition import Definition


@dataclass(frozen=True)
class Move:
    """One projection's part of a swap: `incoming` becomes live; `outgoing` was, if any was.

    With the `definition` of the incoming build, the swap brings it up to what the live one has read.
    """

    incoming: Build
    outgoing: Build | None
    undoes: int | None = None
    definition: Definition | None = None

    @property
    def tables(self) -> list[sql.Identifier]:
        live = [self.incoming.target] if self.outgoing else []
        return [*live, self.incoming.table]


def move_for(conn: Connection, incoming: Build) -> Move:
    """Pair a build with the live one that it replaces; read-only.

    Raises:
        Refused: as `live_build`.
    """
    shape = attached.shape(conn, incoming_table(conn, incoming))
    target = incoming.target_schema, incoming.table_name
    return Move(incoming, live_build(conn, incoming.projection, *target, shape))


def incoming_table(conn: Connection, incoming: Build) -> int:
    """The oid of the build's table.

    Raises:
        MigratorError: somebody dropped it.
    """
    found = catalog.table_oid(conn, incoming.table)
    if found is None:
        raise MigratorError(
            f"the table of build {incoming.build}, {incoming.schema}.{incoming.table_name}, is gone",
            next_step="migrator rebuild-projections builds it anew",
        )
    return found


def live_build(
    conn: Connection, projection: str, schema: str, table: str, successor: Shape
) -> Build | None:
    """Find what a new build would replace, and refuse what could not be replaced; read-only.

    Raises:
        Refused: the table there is none of migrator's, the projection is live in another schema, or
            something hangs on the live table that a swap cannot carry over to a table of the
            successor's columns.
    """
    live = next(iter(builds.find(conn, projection, ["live"])), None)
    target = catalog.table_oid(conn, sql.Identifier(schema, table))
    if target is not None and live is None:
        raise Refused(
            f"a table {schema}.{table} is there that migrator did not build",
            expected=f"none, or the live build of {projection}",
            next_step="rename it or move it to another schema, then run the same command again",
        )
    if live is not None and live.target_schema != schema:
        raise Refused(
            f"{projection} is live in schema {live.target_schema}",
            expected=f"the schema it shall be in, {schema}",
            next_step="a projection cannot change its schema; give it another table name there",
        )
    if target is None:
        return None
    assert live is not None
    refuse_attachments(conn, live, successor)
    return live


def refuse_attachments(conn: Connection, live: Build, successor: Shape) -> None:
    """Refuse a swap that would lose something which hangs on the live table; read-only.

    Raises:
        Refused: each such thing is named, with what to do about it.
    """
    target = catalog.table_oid(conn, live.target)
    assert target is not None
    made = builds.made(conn, live)
    with attached.qualified(conn):
        hanging = attached.uncarried(conn, target)
        unfit = attached.misfits(conn, target, successor, made.names if made else [])
        columns = attached.shape(conn, target)
    hanging += [
        Hanging(
            f"{m.object}: its column {m.column} {m.becomes}", "drop it, or change it to do without"
        )
        for m in unfit
        if not m.left
    ]
    if made:
        hanging += [
            Hanging(
                f"column {name}, added by hand", "let the projection's class define it, or drop it"
            )
            for name in columns
            if name not in made.columns and name not in successor
        ]
    if not hanging:
        return
    lines = "".join(f"\n  {each.object}\n    {each.remedy}" for each in hanging)
    raise Refused(
        f"a cut-over would leave behind what hangs on {live.target_schema}.{live.table_name}:{lines}",
        expected="what can be carried over: docs/cut-over.md lists it",
        next_step="do what stands below each, then run the same command again",
        attachments=[each.object for each in hanging],
    )
