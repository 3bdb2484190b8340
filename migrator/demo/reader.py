"""A reader that hammers a live table from a process of its own, and says what it went through.

A thread would share the interpreter with the rebuild and take its pauses for PostgreSQL's.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import psycopg

from migrator.errors import MigratorError

START_TIMEOUT_S = 30.0
READING = "reading"
SHOWN_ERRORS = 5
PAUSE_AFTER_ERROR_S = 0.01


@dataclass(frozen=True)
class Reads:
    """What a reader saw; a read with another answer than the expected one is an error."""

    reads: int
    errors: int
    shown: tuple[str, ...]
    began: Sequence[float]
    took: Sequence[float]

    def worst_ms(self, since: float, until: float) -> float:
        """The longest read that was under way between two instants of the monotonic clock."""
        pairs = zip(self.began, self.took, strict=True)
        return 1000 * max((t for b, t in pairs if b <= until and b + t >= since), default=0.0)

    def during(self, since: float, until: float) -> int:
        """How many reads were under way between the two instants."""
        pairs = zip(self.began, self.took, strict=True)
        return sum(b <= until and b + t >= since for b, t in pairs)


class Reader:
    """Reads from the moment the block is entered until it is left; `reads` tells afterwards.

        with Reader(url, "SELECT ... WHERE customer_id = '07592'", (201, 1399093)) as reader:
            ...

    Raises, at the start:
        MigratorError: it cannot read even once.
    """

    def __init__(self, database_url: str, query: str, expected: tuple[Any, ...]) -> None:
        self._arguments = (database_url, query, expected)
        self.reads = Reads(0, 0, (), (), ())

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(*self._arguments, theirs), name="migrator demo reader", daemon=True
        )
        self._process.start()
        theirs.close()
        said = self._receive() if self._pipe.poll(START_TIMEOUT_S) else None
        if said != READING:
            self._end()
            raise MigratorError(
                f"the demo's reader could not read once: {said or 'it did not begin'}"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.reads = self._stop()
        finally:
            self._end()

    def _stop(self) -> Reads:
        with suppress(BrokenPipeError):
            self._pipe.send("stop")
        return self._receive() or Reads(0, 1, ("the reader's process was lost",), (), ())

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            return None

    def _end(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()


def _work(database_url: str, query: str, expected: tuple[Any, ...], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        with psycopg.connect(
            database_url, autocommit=True, application_name="migrator demo reader"
        ) as conn:
            pipe.send(_read(conn, query.encode(), expected) or READING)
            reads = _hammer(conn, query.encode(), expected, until=pipe.poll)
    except psycopg.Error as exc:
        pipe.send(str(exc))
        return
    # If the parent is gone there is nobody to tell.
    with suppress(EOFError, BrokenPipeError):
        pipe.recv()
        pipe.send(reads)


def _hammer(
    conn: psycopg.Connection[Any],
    query: bytes,
    expected: tuple[Any, ...],
    *,
    until: Callable[[], bool],
) -> Reads:
    began, took, errors = array("d"), array("d"), list[str]()
    while not until():
        start = time.monotonic()
        wrong = _read(conn, query, expected)
        began.append(start)
        took.append(time.monotonic() - start)
        if wrong:
            errors.append(wrong)
            time.sleep(PAUSE_AFTER_ERROR_S)
    return Reads(len(began), len(errors), tuple(errors[:SHOWN_ERRORS]), began, took)


def _read(conn: psycopg.Connection[Any], query: bytes, expected: tuple[Any, ...]) -> str | None:
    """Read once; return what was wrong, if anything."""
    try:
        found = conn.execute(query).fetchone()
    except psycopg.Error as exc:
        return f"{type(exc).__name__}: {exc}".strip()
    return None if found == expected else f"{found} instead of {expected}"
