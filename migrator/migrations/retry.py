"""Try again after a lock wait, a deadlock or a serialisation failure, up to one total deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
RETRIED = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)


@dataclass(frozen=True)
class Retry:
    """One failed attempt that will be repeated."""

    revision: str
    attempt: int
    cause: str
    pause_s: float


class StillBuilding(Exception):
    """Another session builds the index that this revision needs; wait for it."""


class StatementFailed(Exception):
    """One statement of several failed; the driver's error is the cause."""

    def __init__(self, statement: str) -> None:
        super().__init__(statement)
        self.statement = statement


@dataclass
class Patience:
    """What is left of the deadline, over all revisions of a run: only lost time counts."""

    left_s: float
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    def take(self, seconds: float) -> None:
        self.left_s -= seconds

    def wait(self, attempt: int) -> float:
        """How long to wait before the next attempt; jittered, never beyond what is left."""
        longest = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
        jittered: float = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return min(jittered, self.left_s)


def patiently(
    attempt_once: Callable[[], T],
    *,
    revision: str,
    patience: Patience,
    retried: Callable[[Retry], None],
) -> tuple[T, int]:
    """Run an attempt that leaves nothing behind when it fails; returns its result and the retries.

    Raises:
        Exhausted: the deadline has passed; from the last failure.
        Whatever else the attempt raises.
    """
    attempt = 0
    while True:
        started = time.monotonic()
        try:
            return attempt_once(), attempt
        except Exception as exc:
            cause = driver_error(exc)
            if not isinstance(cause, (*RETRIED, StillBuilding)):
                raise
            patience.take(time.monotonic() - started)
            if patience.left_s <= 0:
                raise Exhausted(attempt + 1, said(cause)) from exc
            pause_s = patience.wait(attempt)
            attempt += 1
            retried(Retry(revision, attempt, said(cause), pause_s))
            patience.pause(pause_s)
            patience.take(pause_s)


class Exhausted(Exception):
    """Every attempt met a lock until the deadline."""

    def __init__(self, attempts: int, cause: str) -> None:
        super().__init__(cause)
        self.attempts = attempts
        self.cause = cause


def driver_error(exc: BaseException) -> BaseException:
    """The psycopg error that SQLAlchemy or a StatementFailed wraps, or the error itself."""
    if isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.Error):
        return exc.orig
    if isinstance(exc, StatementFailed) and exc.__cause__ is not None:
        return exc.__cause__
    return exc


def said(exc: BaseException) -> str:
    """PostgreSQL's message in one line, with its detail."""
    if not isinstance(exc, psycopg.Error):
        return str(exc)
    primary = exc.diag.message_primary or str(exc).strip().partition("\n")[0]
    return f"{primary} ({exc.diag.message_detail})" if exc.diag.message_detail else primary
