"""Abort a build by hand: drop what it made, and say so in its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrator.errors import Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.turn import turn

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class Aborted:
    """A build with the state it was in, and what of it is dropped; nothing where that was before."""

    build: int
    projection: str
    state: str
    tables: tuple[str, ...]
    statements: tuple[str, ...]


def plan(settings: Settings, number: int) -> Aborted:
    """Say what `abort` would drop; read-only.

    Raises:
        As `abort`, but never Busy.
    """
    with connect(settings, "plan") as conn:
        conn.read_only = True
        return _planned(conn, _found(conn, number))


def abort(settings: Settings, number: int) -> Aborted:
    """Drop the build's schema with all of its tables, and mark it aborted; atomic, idempotent.

    Raises:
        UsageError: there is no such build.
        Refused: it is live or archived, or was dropped.
        Busy: a rebuild of its projection is running; the message names who runs it.
    """
    with connect(settings, "abort") as conn:
        projection = _found(conn, number).projection
    with turn(settings, [projection]):
        with connect(settings, "abort") as conn:
            build = _found(conn, number)
            planned = _planned(conn, build)
            if build.state != "aborted":
                builds.drop(conn, build, "aborted")
        return planned


def _found(conn: Connection, number: int) -> Build:
    build = builds.numbered(conn, number) if ledger.exists(conn) else None
    if build is None:
        raise UsageError(
            f"there is no build {number}", next_step="migrator status shows every build"
        )
    name = build.projection
    steps = {
        "live": f"migrator rebuild-projections --projection {name} replaces it; "
        "migrator rollback goes back to the build before it",
        "archived": f"keep it: migrator rollback --projection {name} makes it live again",
        "dropped": "nothing is left of it to abort",
    }
    if build.state in steps:
        raise Refused(
            f"build {number} of {name} is {build.state}",
            expected="a build that is unfinished or failed",
            next_step=steps[build.state],
            build=number,
            state=build.state,
        )
    return build


def _planned(conn: Connection, build: Build) -> Aborted:
    tables = conn.execute(
        """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY 1""",
        (build.schema,),
    ).fetchall()
    left = build.state != "aborted"
    return Aborted(
        build.build,
        build.projection,
        build.state,
        tuple(f"{build.schema}.{name}" for (name,) in tables),
        (builds.drop_statement(build).as_string(conn),) if left else (),
    )
