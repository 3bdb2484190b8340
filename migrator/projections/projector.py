"""Keep one projection's live build current: this process's share of its partitions.

    wait until a build of our definition is live → join the group → read, fold, commit, again

Where a partition stands is the database's word alone: it is read anew whenever partitions change hands,
another build becomes live, somebody else has moved a position, or a connection was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Event
from typing import TYPE_CHECKING

import psycopg

from migrator.errors import CannotConnect, Fenced, MigratorError, Overtaken, Refused
from migrator.kafka import topics
from migrator.kafka.group import Group, Place
from migrator.logs import logger
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect, translated
from migrator.projections import build as builds
from migrator.projections import writers
from migrator.projections.build import Build, Position
from migrator.projections.following import Following, Moved
from migrator.projections.registry import Registered
from migrator.projections.vitals import Vitals

if TYPE_CHECKING:
    from migrator.settings import Settings

LOOK_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class Projector:
    """Follows one projection until `stop` is set; `until`, where given, is where it may end.

    Where a build of another definition is live it ends with Fenced or, if it `waits`, waits for its
    own, outside the group.
    """

    def __init__(
        self,
        settings: Settings,
        registered: Registered,
        vitals: Vitals,
        stop: Event,
        *,
        waits: bool = False,
        until: Mapping[Place, int] | None = None,
    ) -> None:
        self._settings = settings
        self._registered = registered
        self._vitals = vitals
        self._stop = stop
        self._waits = waits
        self._until = until
        self._has_begun = False
        self._is_through = False
        self._failures = 0

    def run(self) -> None:
        """Follow; returns when it was told to stop, or has reached `until`.

        Raises:
            Fenced: another definition is live, or nothing, and it does not wait.
            CannotConnect: PostgreSQL or Kafka did not answer when it began.
            MigratorError: an event stops it, or a topic is not the one that the build was made from.
        """
        with self._connected() as conn:
            _refuse_other_ledgers(conn)
        while not self._is_done:
            try:
                build = self._awaited()
                if build is None:
                    return
                with self._surviving(), self._group(build) as group:
                    self._has_begun = True
                    self._follow_in(group)
            except Fenced:
                if not self._waits:
                    raise

    @property
    def _is_done(self) -> bool:
        return self._is_through or self._stop.is_set()

    def _awaited(self) -> Build | None:
        """The live build, once it is of our definition; None where we are told to stop before."""
        while not self._stop.is_set():
            with self._surviving(), self._connected() as conn:
                try:
                    return self._live(conn)
                except Fenced as exc:
                    if not self._waits:
                        raise
                    self._has_begun = True
                    self._vitals.waits(exc.found)
            self._stop.wait(LOOK_S)
        return None

    def _live(self, conn: Connection) -> Build:
        """The live build of our definition, as it is now; read-only."""
        with conn.transaction():
            number = writers.assert_writer(conn, self._registered.name, self._registered.hash)
            found = builds.numbered(conn, number)
        assert found is not None
        return found

    def _group(self, build: Build) -> Group:
        with self._connected() as conn:
            held = builds.positions(conn, build.build)
        names = self._registered.definition.topics
        for topic in names:
            _refuse_another(self._settings, held, topic)
        ids = {p.topic: p.topic_id for p in held}
        group = self._settings.follow.group
        return Group(
            self._settings.kafka_config,
            f"{group}-{self._registered.name}-{self._registered.hash[:12]}",
            {name: ids[name] for name in names},
        )

    def _follow_in(self, group: Group) -> None:
        """Follow as a member, over one connection after the other, and build after build."""
        while not self._is_done:
            with self._surviving(), self._connected() as conn:
                while not self._is_done:
                    build = self._live(conn)
                    following = Following(
                        conn, self._settings, self._registered, build, group, self._vitals
                    )
                    with suppress(Moved):
                        self._turn(following)

    def _turn(self, following: Following) -> None:
        while not self._is_done:
            following.turn()
            self._failures = 0
            self._is_through = self._until is not None and following.is_past(self._until)

    def _connected(self) -> AbstractContextManager[Connection]:
        return connect(self._settings, f"follow {self._registered.name}", autocommit=True)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Go on behind what passes by itself: a server that is away, a lock, another projector."""
        try:
            yield
        except psycopg.OperationalError as exc:
            self._pause(translated(exc).found)
        except Overtaken as exc:
            self._pause(exc.found)
        except CannotConnect as exc:
            if not self._has_begun:
                raise
            self._pause(exc.found)

    def _pause(self, why: str) -> None:
        self._failures += 1
        self._vitals.fails(why)
        logger().warning("follow goes on", projection=self._registered.name, cause=why)
        self._stop.wait(min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S))


def _refuse_other_ledgers(conn: Connection) -> None:
    ledger.refuse_older(conn)
    if not ledger.exists(conn):
        raise Refused(
            "this database has no ledger, and so no live build",
            expected="a projection that was built: follow keeps it current",
            next_step="migrator rebuild-projections",
        )


def _refuse_another(settings: Settings, held: list[Position], topic: str) -> None:
    now = topics.describe(settings.kafka_config, topic)
    for _, found in builds.differences(held, now):
        raise MigratorError(
            f"{found}; the live table stays as it is",
            expected="the topic that the live build was made from, with every event still to come",
            next_step="migrator rebuild-projections builds it anew from the topic as it is",
            topic=topic,
        )
