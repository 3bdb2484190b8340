"""The sandbox that stands by itself until it is taken down: at most one in each cache folder."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import Busy
from migrator.sandbox import artifacts, cache, launch, parts, session, state
from migrator.sandbox.plan import Addresses, Ready

_COMMAND_LOCK = "sandbox-command.lock"
_START_DEADLINE_S = 120.0
_POLL_S = 0.05
_ANSWER_TIMEOUT_S = 5


@dataclass(frozen=True)
class StandingSandbox:
    database_url: str
    bootstrap_servers: str
    postgres: str
    kind: str
    log_dir: str
    was_up: bool
    """Whether it stood before the call."""

    def environment(self) -> dict[str, str]:
        """Give the variables that point migrator at the servers."""
        return session.environment(self.database_url, self.bootstrap_servers)


def up(postgres: str | None, kind: parts.Kind, say: cache.Say) -> StandingSandbox:
    """Start a sandbox that outlives this process, or give the one that is up and answers.

    Idempotent. What is left of one whose keeper is gone, or that no longer answers, is cleared
    away first.

    Args:
        postgres: the major version; none for 18, or whichever is up.
        kind: as for `start_sandbox`; `auto` also for whichever is up.
        say: called with one plain line before each slow step.

    Raises:
        Busy: another one is up than the one asked for.
        MigratorError: as from `start_sandbox`.
    """
    artifacts.require_packages("filelock")
    folder = cache.cache_dir()
    with _one_command_at_a_time(folder):
        found = _running(folder)
        if found and _answers(found.addresses):
            _check_same(found, postgres, kind)
            return _describe(found, was_up=True)
        if found:
            say("The sandbox that is up does not answer; stopping it ...")
            _stop(folder, found)
        state.remove(folder)
        major = postgres or session.DEFAULT_MAJOR
        plan = parts.make_plan(major, kind, say, with_kafka=True, standing=str(folder))
        return _describe(launch.start_keeper(plan).ready, was_up=False)


def down() -> bool:
    """Stop the standing sandbox; tell whether there was one."""
    artifacts.require_packages("filelock")
    folder = cache.cache_dir()
    with _one_command_at_a_time(folder):
        found = _running(folder)
        if found:
            _stop(folder, found)
        state.remove(folder)
        return found is not None


@contextmanager
def _one_command_at_a_time(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(folder / _COMMAND_LOCK):
        yield


def _running(folder: Path) -> Ready | None:
    """Read who holds the lock; wait for one that is only now starting."""
    deadline = time.monotonic() + _START_DEADLINE_S
    while state.is_held(folder):
        found = state.read(folder)
        if found:
            return found
        if time.monotonic() > deadline:
            raise Busy(
                f"a sandbox has been starting for {_START_DEADLINE_S:.0f} s",
                expected="it to answer, or to end",
                next_step="look for a process named migrator.sandbox.keeper and stop it",
            )
        time.sleep(_POLL_S)
    return None


def _answers(addresses: Addresses) -> bool:
    import psycopg

    try:
        psycopg.connect(addresses.database_url, connect_timeout=_ANSWER_TIMEOUT_S).close()
    except psycopg.OperationalError:
        return False
    return not addresses.bootstrap_servers or _broker_answers(addresses.bootstrap_servers)


def _broker_answers(bootstrap_servers: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    host, port = bootstrap_servers.rsplit(":", 1)
    client = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
    try:
        # Without this the client would try for all its time, even if nobody listens.
        socket.create_connection((host, int(port)), timeout=_ANSWER_TIMEOUT_S).close()
        AdminClient(client).list_topics(timeout=_ANSWER_TIMEOUT_S)
    except (OSError, KafkaException):
        return False
    return True


def _check_same(found: Ready, postgres: str | None, kind: parts.Kind) -> None:
    plan = found.plan
    if postgres in (None, plan.postgres_major) and kind in ("auto", plan.kind):
        return
    raise Busy(
        f"another sandbox is up: {plan.kind}, with PostgreSQL {plan.postgres_major}",
        expected="none, or the one asked for",
        next_step="migrator sandbox down, and then this command again",
    )


def _stop(folder: Path, found: Ready) -> None:
    """End the servers and their keeper; return when it has let go of its lock."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The lock is held, so this process id is that of our keeper and of nobody else.
        with suppress(ProcessLookupError):
            os.kill(found.keeper_pid, number)
        deadline = time.monotonic() + found.plan.stop_deadline_s + launch.STOP_MARGIN_S
        while state.is_held(folder):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        else:
            return
    raise Busy(
        f"the keeper of the sandbox, process {found.keeper_pid}, does not end",
        expected="it to end when it is killed",
        next_step="look at the process with ps; the machine may be out of memory or disk",
    )


def _describe(ready: Ready, *, was_up: bool) -> StandingSandbox:
    return StandingSandbox(
        database_url=ready.addresses.database_url,
        bootstrap_servers=ready.addresses.bootstrap_servers,
        postgres=ready.plan.postgres_major,
        kind=ready.plan.kind,
        log_dir=str(ready.log_dir),
        was_up=was_up,
    )
