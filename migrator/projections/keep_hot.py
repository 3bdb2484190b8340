"""Feed the archived build of a projection, so that going back to it waits for nothing.

It goes on from its own positions to those of the live build, again and again, by the definition that it
was built from: one of this checkout. A process at a time does it; the others find it done.
"""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import psycopg

from migrator.errors import CannotConnect, MigratorError, Overtaken
from migrator.logs import logger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections.build import Build
from migrator.projections.catch_up import catch_up
from migrator.projections.registry import Registered
from migrator.projections.vitals import Vitals

if TYPE_CHECKING:
    from migrator.settings import Settings


def keep_hot(settings: Settings, registered: Registered, vitals: Vitals, stop: Event) -> None:
    """Keep the newest archived build of this very definition at the live build's positions.

    Until `stop` is set. What goes wrong is told and tried again: readers do not see this build.
    """
    while not stop.is_set():
        try:
            with connect(settings, f"keep hot {registered.name}", autocommit=True) as conn:
                while not stop.is_set():
                    _feed(conn, settings, registered, vitals)
                    stop.wait(settings.follow.keep_hot_s)
        except (CannotConnect, Overtaken, psycopg.Error) as exc:
            logger().info("keep-hot goes on", projection=registered.name, cause=str(exc))
        except MigratorError as exc:
            logger().warning("keep-hot is held up", projection=registered.name, cause=exc.found)
            vitals.tell("not kept hot", why=exc.found)
        stop.wait(settings.follow.keep_hot_s)


def _feed(conn: Connection, settings: Settings, registered: Registered, vitals: Vitals) -> None:
    build = archived(conn, registered)
    live = next(iter(builds.find(conn, registered.name, ["live"])), None)
    if build is None or live is None or not _is_mine(conn, build):
        return
    until = {(p.topic, p.partition): p.next_offset for p in builds.positions(conn, live.build)}
    events = catch_up(conn, settings, build, registered.definition, build.table, until)
    if events:
        vitals.tell("kept hot", build=build.build, events=events)


def archived(conn: Connection, registered: Registered) -> Build | None:
    """The newest archived build, where it was made by this definition; read-only."""
    newest = next(iter(builds.find(conn, registered.name, ["archived"])), None)
    return newest if newest and newest.definition_hash == registered.hash else None


def _is_mine(conn: Connection, build: Build) -> bool:
    """Be the process that feeds the build, as long as this session lasts."""
    row = conn.execute(
        "SELECT pg_try_advisory_lock(hashtext('migrator:hot'), %s::int)", (build.build,)
    ).fetchone()
    return row is not None and row[0]
