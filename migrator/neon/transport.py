"""Ask Neon's API once, and again where that is safe, until an answer comes or the patience is spent.

What may be sent again, by the API's own description (GeneralError in its OpenAPI file): a GET after
anything; whatever was answered with 423 (another operation runs), 429 or 503; whatever never got on its
way. Any other failure of a write leaves open whether it was carried out: that is `Unclear`, and
client.py reads again before it sends anything a second time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from migrator.errors import Busy, CannotConnect, MigratorError, SettingsError
from migrator.logs import logger
from migrator.version import __version__

if TYPE_CHECKING:
    import httpx2

    from migrator.settings import Neon

Kind = Literal["busy", "away"]


@dataclass(frozen=True)
class Pace:
    """How long to wait between attempts, and between two looks at an operation, in seconds."""

    first_s: float = 0.25
    most_s: float = 10.0
    poll_s: float = 1.0


PACE = Pace()


class Unclear(Exception):
    """Whether a write was carried out is not known; `error` is what to raise if nobody finds out."""

    def __init__(self, error: MigratorError) -> None:
        super().__init__(error.found)
        self.error = error


@dataclass(frozen=True)
class Answer:
    """What the API answered: `body` is empty for an answer without content."""

    status: int
    body: dict[str, Any]
    request_id: str
    retry_after_s: float | None = None

    @property
    def said(self) -> str:
        message = str(self.body.get("message") or "no reason given").rstrip(".")
        return f"{message} (HTTP {self.status}, request id {self.request_id})"


@dataclass
class Patience:
    """How long one piece of work goes on trying: `wait_s` while Neon is busy, `retry_s` while away."""

    neon: Neon
    attempts: int = 0
    _since: dict[Kind, float] = field(default_factory=dict)

    def spend(self, kind: Kind, error: MigratorError, *, after_s: float | None = None) -> None:
        """Sleep before the next attempt, never shorter than the server asked for.

        Raises:
            MigratorError: `error`, where the next attempt would come too late.
        """
        now = time.monotonic()
        limit = self.neon.wait_s if kind == "busy" else self.neon.retry_s
        most = min(PACE.most_s, PACE.first_s * 2 ** min(self.attempts, 20))
        delay = max(after_s or 0.0, random.uniform(0, most))  # noqa: S311 - jitter
        if now + delay > self._since.setdefault(kind, now) + limit:
            raise error
        self.attempts += 1
        logger().info("asking Neon again", why=error.found, delay_s=round(delay, 3))
        time.sleep(delay)


class Transport:
    """Sends requests with the key, which no error, log line or repr shows."""

    def __init__(self, neon: Neon) -> None:
        import httpx2

        if neon.api_key is None:
            raise SettingsError(
                f"there is no API key for the Neon project {neon.project_id}",
                expected="MIGRATOR_NEON_API_KEY, MIGRATOR_NEON_API_KEY_FILE or NEON_API_KEY",
                next_step="make a key of that project in Neon's console",
            )
        self.neon = neon
        self._http = httpx2.Client(
            headers={
                "Authorization": f"Bearer {neon.api_key.get_secret_value()}",
                "Accept": "application/json",
                "User-Agent": f"migrator/{__version__}",
            },
            timeout=neon.timeout_s,
        )

    def close(self) -> None:
        self._http.close()

    def read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET, until it is answered; 404 is an answer.

        Raises:
            Busy, CannotConnect: the patience is spent.
            MigratorError: Neon refuses.
        """
        patience = Patience(self.neon)
        while True:
            try:
                return self._settled("GET", path, patience, params=params, accepted=(404,))
            except Unclear as unclear:
                patience.spend("away", unclear.error)

    def write(
        self,
        method: str,
        path: str,
        patience: Patience,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        accepted: tuple[int, ...] = (),
    ) -> Answer:
        """Send a write, again where that is safe; statuses in `accepted` are answers, too.

        Raises:
            Unclear: it may have been carried out, or not.
            Busy, CannotConnect, MigratorError: as `read`; it was not carried out.
        """
        return self._settled(method, path, patience, params=params, body=body, accepted=accepted)

    def _settled(
        self,
        method: str,
        path: str,
        patience: Patience,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        accepted: tuple[int, ...] = (),
    ) -> Answer:
        while True:
            what = f"{method} {path}"
            try:
                answer = self._once(method, path, params, body)
            except _NotSent as exc:
                patience.spend("away", exc.error)
                continue
            match answer.status:
                case status if 200 <= status < 300 or status in accepted:
                    return answer
                case 423 | 429:
                    patience.spend("busy", _busy(what, answer), after_s=answer.retry_after_s)
                case 503:
                    patience.spend("away", _away(what, answer.said), after_s=answer.retry_after_s)
                case status if status >= 500 or status == 408:
                    raise Unclear(_away(what, answer.said))
                case _:
                    raise _refused(what, answer)

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> Answer:
        import httpx2

        request_id = str(uuid4())
        what = f"{method} {path}"
        try:
            response = self._http.request(
                method,
                self.neon.base_url.rstrip("/") + path,
                params=dict(params or {}),
                json=body,
                headers={"X-Request-ID": request_id},
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as exc:
            raise _NotSent(_away(what, _lost(exc, request_id))) from exc
        except httpx2.TransportError as exc:
            raise Unclear(_away(what, _lost(exc, request_id))) from exc
        answer = _answer(response, request_id)
        logger().debug("Neon answered", asked=what, status=answer.status, request_id=request_id)
        return answer


class _NotSent(Exception):
    """The request never got on its way."""

    def __init__(self, error: MigratorError) -> None:
        super().__init__(error.found)
        self.error = error


def _answer(response: httpx2.Response, request_id: str) -> Answer:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if not isinstance(body, dict):
        # A proxy's page, say. What it answers a write with says nothing of the write.
        status = response.status_code if response.status_code >= 400 else 502
        return Answer(status, {"message": "the answer is no JSON object"}, request_id)
    after = retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"))
    return Answer(response.status_code, body, str(body.get("request_id") or request_id), after)


def retry_after_s(value: str | None, date: str | None = None) -> float | None:
    """How many seconds Retry-After asks for, given as seconds or as an HTTP date; None if neither.

    A date is compared with the server's own clock where the answer tells it. Pure but for the clock.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    until, now = _http_date(value), _http_date(date) or datetime.now(UTC)
    return None if until is None else max((until - now).total_seconds(), 0.0)


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _lost(exc: Exception, request_id: str) -> str:
    return f"{type(exc).__name__}: {exc} (request id {request_id})"


def _busy(what: str, answer: Answer) -> Busy:
    why = "another operation runs in the project" if answer.status == 423 else "too many requests"
    return Busy(
        f"Neon puts {what} off, as {why}: {answer.said}",
        expected="its turn within [neon] wait_s",
        next_step="wait for what else works on the project, then run the same command again",
        request_id=answer.request_id,
        status=answer.status,
    )


def _away(what: str, why: str) -> CannotConnect:
    return CannotConnect(
        f"Neon's API does not answer {what}: {why}",
        expected="an answer within [neon] retry_s",
        next_step="look at neonstatus.com, then run the same command again",
    )


def _refused(what: str, answer: Answer) -> MigratorError:
    known: dict[str, Any] = {"request_id": answer.request_id, "status": answer.status}
    if answer.status in (401, 403):
        return CannotConnect(
            f"Neon does not accept the API key for {what}: {answer.said}",
            expected="a key that may work on this project",
            next_step="check MIGRATOR_NEON_API_KEY and [neon] project_id",
            **known,
        )
    if 300 <= answer.status < 400:
        return CannotConnect(
            f"{what} is answered with a redirection (HTTP {answer.status})",
            expected="Neon's API under [neon] base_url; the key is sent nowhere else",
            next_step="correct [neon] base_url",
            **known,
        )
    return MigratorError(f"Neon refuses {what}: {answer.said}", **known)
