"""Try again after what passes: a lock, a deadlock, a lost connection; up to one total deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from migrator.errors import CannotConnect
from migrator.migrations.lookout import InTheWay, Lookout
from migrator.postgres.blockers import Blocker, Ended

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
LOOK_AGAIN_S = 0.25
RETRIED = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)


@dataclass(frozen=True)
class Retry:
    """One failed attempt that will be repeated, and who was in its way, if that was seen."""

    revision: str
    attempt: int
    cause: str
    pause_s: float
    blockers: tuple[Blocker, ...] = ()
    lost_connection: bool = False


@dataclass(frozen=True)
class HeldOff:
    """A revision that does not ask for its locks yet: long transactions would keep it waiting."""

    revision: str
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True)
class Killed:
    """What became of those who were in the way, where the run was told to end them."""

    revision: str
    ended: tuple[Ended, ...]


Told = Callable[[Retry | HeldOff | Killed], None]


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


@dataclass
class Effort:
    """What a revision has cost so far: attempts that failed, waits, and whom it has ended."""

    retries: int = 0
    lock_wait_ms: float = 0.0
    ended: list[Ended] = field(default_factory=list)

    @property
    def killed(self) -> list[Ended]:
        return [one for one in self.ended if one.how != "spared"]


@dataclass
class Trying(Generic[T]):
    """A revision that is attempted until it is done, fails for good, or the deadline has passed.

    `attempt` leaves nothing behind when it fails. `settled` says, on a new connection after one was
    lost, what the attempt had committed, or None where it had not.
    """

    attempt: Callable[[Effort], T]
    revision: str
    patience: Patience
    told: Told
    lookout: Lookout
    settled: Callable[[], T | None] | None = None
    effort: Effort = field(default_factory=Effort)
    _unsettled: bool = False

    def patiently(self) -> tuple[T, Effort]:
        """Attempt it, again and again; returns its result and what it has cost.

        Raises:
            Exhausted: the deadline has passed; from the last failure.
            Whatever else the attempt raises.
        """
        while True:
            started = time.monotonic()
            try:
                return self._once(), self.effort
            except Exception as exc:
                if not self._passes(exc):
                    raise
                self.patience.take(time.monotonic() - started)
                self._wait(exc)

    def _once(self) -> T:
        if self._unsettled and self.settled is not None:
            found = self.settled()
            if found is not None:
                return found
            self._unsettled = False
        return self.attempt(self.effort)

    def _passes(self, exc: Exception) -> bool:
        cause = driver_error(exc)
        if is_lost(cause):
            return self.settled is not None
        return isinstance(cause, (*RETRIED, StillBuilding, InTheWay))

    def _wait(self, exc: Exception) -> None:
        cause = driver_error(exc)
        if isinstance(cause, InTheWay):
            self._hold_off(cause)
            return
        lost = is_lost(cause)
        self._unsettled |= lost
        found = [] if lost else self.lookout.blockers()
        self.effort.lock_wait_ms += self.lookout.sight.lock_wait_ms
        if self.patience.left_s <= 0:
            raise Exhausted(
                self.effort.retries + 1, cause, found, unsettled=self._unsettled
            ) from exc
        self._end(found)
        pause_s = self.patience.wait(self.effort.retries)
        self.effort.retries += 1
        self.told(
            Retry(self.revision, self.effort.retries, said(cause), pause_s, tuple(found), lost)
        )
        self._pause(pause_s)

    def _hold_off(self, cause: InTheWay) -> None:
        """Ask for nothing while long transactions hold it: readers would queue behind the asker."""
        found, told = cause.blockers, None
        while found:
            if told != (told := {(b.pid, b.gid) for b in found}):
                self.told(HeldOff(self.revision, tuple(found)))
                self._end(found)
            if self.patience.left_s <= 0:
                raise Exhausted(self.effort.retries + 1, cause, found, held_off=True) from cause
            pause_s = min(LOOK_AGAIN_S, self.patience.left_s)
            self._pause(pause_s)
            self.effort.lock_wait_ms += pause_s * 1000
            found = self.lookout.in_the_way(cause.wants)

    def _end(self, found: list[Blocker]) -> None:
        ended = self.lookout.end(found)
        if ended:
            self.effort.ended += ended
            self.told(Killed(self.revision, tuple(ended)))

    def _pause(self, pause_s: float) -> None:
        self.patience.pause(pause_s)
        self.patience.take(pause_s)


class Exhausted(Exception):
    """Every attempt met what passes, until the deadline."""

    def __init__(
        self,
        attempts: int,
        cause: BaseException,
        blockers: list[Blocker],
        *,
        held_off: bool = False,
        unsettled: bool = False,
    ) -> None:
        super().__init__(said(cause))
        self.attempts = attempts
        self.cause = said(cause)
        self.blockers = blockers
        self.held_off = held_off
        self.unsettled = unsettled
        self.lost_connection = is_lost(cause)


def is_lost(exc: BaseException) -> bool:
    """Whether the connection, not the statement, has failed."""
    if isinstance(exc, CannotConnect):
        return True
    if not isinstance(exc, psycopg.OperationalError):
        return False
    state = exc.sqlstate
    return state is None or state.startswith(("08", "57P"))


def driver_error(exc: BaseException) -> BaseException:
    """The psycopg error that SQLAlchemy or a StatementFailed wraps, or the error itself."""
    if isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.Error):
        return exc.orig
    if isinstance(exc, StatementFailed) and exc.__cause__ is not None:
        return exc.__cause__
    if isinstance(exc, PendingRollbackError) and exc.__context__ is not None:
        # Alembic went on with a connection that was lost under it.
        return driver_error(exc.__context__)
    return exc


def said(exc: BaseException) -> str:
    """PostgreSQL's message in one line, with its detail."""
    if not isinstance(exc, psycopg.Error):
        return str(exc).partition("\n")[0]
    primary = exc.diag.message_primary or str(exc).strip().partition("\n")[0]
    return f"{primary} ({exc.diag.message_detail})" if exc.diag.message_detail else primary
