"""Is the application well? Ask it again and again, for a window after the cut-over."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from migrator.deploy.secrets import masked
from migrator.errors import MigratorError
from migrator.logs import logger
from migrator.postgres.connect import connect

if TYPE_CHECKING:
    from migrator.settings import HealthCheck, Settings

SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """What one check said, once."""

    passed: bool
    said: str


@dataclass(frozen=True)
class Checked:
    """How one check did over the window: `last` is its last answer, `worst` its last failure."""

    check: str
    asked: int = 0
    failures: int = 0
    last: Answer | None = None
    worst: Answer | None = None

    def heard(self, answer: Answer) -> Checked:
        """The same with one more answer."""
        return replace(
            self,
            asked=self.asked + 1,
            failures=self.failures + (not answer.passed),
            last=answer,
            worst=self.worst if answer.passed else answer,
        )


@dataclass(frozen=True)
class Health:
    """Every check over the window."""

    checked: tuple[Checked, ...]
    allowed: int

    @property
    def failing(self) -> tuple[Checked, ...]:
        """The checks that failed more often than is allowed."""
        return tuple(each for each in self.checked if each.failures > self.allowed)

    def __str__(self) -> str:
        if not self.failing:
            asked = sum(each.asked for each in self.checked)
            failed = sum(each.failures for each in self.checked)
            return f"{', '.join(each.check for each in self.checked)}: {asked} answers, {failed} failed"
        return "; ".join(
            f"{each.check} failed {each.failures} times, {self.allowed} are allowed: {each.worst.said}"
            for each in self.failing
            if each.worst
        )


def watch(
    settings: Settings,
    *,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Health:
    """Ask every check of [health] in each interval of the window; read-only but for what commands do.

    Ends as soon as one has failed more often than is allowed, and not before each one's last answer
    was a good one: a window does not end well with a failure.
    """
    health = settings.health
    checked = {check.name: Checked(check.name) for check in health.checks}
    limit = now() + health.window_s
    while True:
        for check in health.checks:
            answer = ask(settings, check)
            checked[check.name] = checked[check.name].heard(answer)
            if not answer.passed:
                logger().warning("health check failed", check=check.name, said=answer.said)
        found = Health(tuple(checked.values()), health.failures)
        well = all(each.last is not None and each.last.passed for each in found.checked)
        if found.failing or (well and now() >= limit):
            return found
        pause(health.interval_s)


def ask(settings: Settings, check: HealthCheck) -> Answer:
    """Ask one check once; whatever goes wrong is a failure, and its words hold no secret."""
    try:
        if check.url is not None:
            answer = _http(settings, check)
        elif check.command is not None:
            answer = _command(settings, check)
        else:
            answer = _sql(settings, check)
    except MigratorError as exc:
        answer = Answer(passed=False, said=exc.found)
    return replace(answer, said=masked(settings, answer.said))


def _http(settings: Settings, check: HealthCheck) -> Answer:
    import httpx2

    assert check.url is not None
    headers = {name: value.get_secret_value() for name, value in check.headers.items()}
    began = time.monotonic()
    try:
        response = httpx2.get(
            check.url.get_secret_value(), headers=headers, timeout=settings.health.timeout_s
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        # Its own message may hold the URL.
        return Answer(passed=False, said=f"no answer: {type(exc).__name__}")
    took_ms = (time.monotonic() - began) * 1000
    problems = list(_http_problems(check, response, took_ms))
    said = f"{response.status_code} in {took_ms:.0f} ms"
    return Answer(not problems, f"{said}: {', '.join(problems)}" if problems else said)


def _http_problems(check: HealthCheck, response: Any, took_ms: float) -> Iterator[str]:
    if response.status_code != check.status:
        yield f"expected status {check.status}"
    if check.latency_ms is not None and took_ms > check.latency_ms:
        yield f"expected within {check.latency_ms} ms"
    if not check.fields:
        return
    try:
        document = response.json()
    except ValueError:
        yield "expected JSON"
        return
    for path, wanted in check.fields.items():
        found = _field(document, path)
        if found != wanted:
            yield f"expected {path} to be {wanted!r}, found {str(found)[:SHOWN]!r}"


def _field(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _command(settings: Settings, check: HealthCheck) -> Answer:
    assert check.command is not None
    try:
        ran = subprocess.run(
            check.command,
            cwd=settings.root,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=settings.health.timeout_s,
        )
    except subprocess.TimeoutExpired:
        return Answer(passed=False, said=f"did not end within {settings.health.timeout_s:g} s")
    except OSError as exc:
        return Answer(passed=False, said=f"cannot be run: {exc.strerror}")
    lines = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
    last = f": {lines[-1][:SHOWN]}" if lines and ran.returncode else ""
    return Answer(ran.returncode == 0, f"exit code {ran.returncode}{last}")


def _sql(settings: Settings, check: HealthCheck) -> Answer:
    assert check.sql is not None
    timeout_ms = max(round(settings.health.timeout_s * 1000), 1)
    with connect(settings, "health", statement_timeout_ms=timeout_ms) as conn:
        conn.read_only = True
        try:
            row = conn.execute(check.sql.encode()).fetchone()
        except psycopg.Error as exc:
            return Answer(passed=False, said=exc.diag.message_primary or str(exc).strip())
    if row is not None and row[0] is True:
        return Answer(passed=True, said="true")
    return Answer(
        passed=False,
        said=f"expected a row that is true, found {'none' if row is None else str(row[0])[:SHOWN]}",
    )
