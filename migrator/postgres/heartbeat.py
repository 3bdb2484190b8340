"""A sign of life in the database, every few seconds, from whoever holds a lock."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psycopg

from migrator.errors import MigratorError
from migrator.postgres.connect import Connection, connect

if TYPE_CHECKING:
    from migrator.settings import Settings

INTERVAL_S = 5.0


class Heartbeat:
    """Writes migrator.deployer.heartbeat_at for the block, while the epoch is the holder's.

    It has a connection of its own, opened at the first beat: the one that holds the lock must stay
    idle. A beat that fails is left out; the next one connects anew.
    """

    def __init__(self, settings: Settings, lock: str, epoch: int) -> None:
        self._settings = settings
        self._row = (lock, epoch)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(INTERVAL_S,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _run(self, interval_s: float) -> None:
        conn: Connection | None = None
        try:
            while not self._ended.wait(interval_s):
                with suppress(psycopg.Error, MigratorError):
                    if conn is None or conn.closed:
                        conn = connect(self._settings, f"heartbeat {self._row[0]}", autocommit=True)
                    conn.execute(_BEAT, self._row)
        finally:
            if conn is not None:
                conn.close()


_BEAT = """
UPDATE migrator.deployer SET heartbeat_at = clock_timestamp() WHERE lock = %s AND epoch = %s
"""
