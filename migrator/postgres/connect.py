"""Open sessions that name themselves, bound their waits, and fail with a message one can act on."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migrator.errors import Busy, CannotConnect, MigratorError, Refused
from migrator.logs import logger

if TYPE_CHECKING:
    from migrator.settings import Settings

Connection = psycopg.Connection[tuple[Any, ...]]

POOLER = "-pooler"


def connect(
    settings: Settings,
    purpose: str,
    *,
    autocommit: bool = False,
    statement_timeout_ms: int | None = None,
) -> Connection:
    """Open a session named `migrator PURPOSE`, with the settings' timeouts, in UTC.

    READ COMMITTED. `statement_timeout_ms=0` lifts the limit for work that is long by nature. What
    passes by itself, a server that starts or a compute that wakes up, is waited for.

    Raises:
        Refused: the host is a transaction pooler, which loses session state.
        CannotConnect: no server, no such database, or it does not let us in.
    """
    conninfo = settings.conninfo
    refuse_pooler(conninfo)
    if statement_timeout_ms is None:
        statement_timeout_ms = settings.database.statement_timeout_ms
    options = {
        "timezone": "UTC",
        "lock_timeout": f"{settings.database.lock_timeout_ms}ms",
        "statement_timeout": f"{statement_timeout_ms}ms",
        "idle_in_transaction_session_timeout": "0",
        # A killed client's statement, a long CREATE INDEX say, ends with it and frees its locks.
        "client_connection_check_interval": "1s",
    }
    ours = " ".join(f"-c {name}={value}" for name, value in options.items())
    logger().debug("connecting", purpose=purpose, server=shown(conninfo))
    theirs = str(conninfo_to_dict(conninfo).get("options") or os.environ.get("PGOPTIONS", ""))
    limit = time.monotonic() + settings.database.connect_retry_s
    while True:
        try:
            return psycopg.connect(
                conninfo,
                autocommit=autocommit,
                application_name=f"migrator {purpose}",
                connect_timeout=settings.database.connect_timeout_s,
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
                options=f"{theirs} {ours}".strip(),
            )
        except psycopg.OperationalError as exc:
            if "unsupported startup parameter" in str(exc):
                raise _pooled(str(exc).strip().splitlines()[-1]) from exc
            if not passes(str(exc)) or time.monotonic() >= limit:
                raise _unreachable(exc, conninfo) from exc
            logger().info("connecting again", purpose=purpose, why=str(exc).strip())
        time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter


_PASSING = (
    # PostgreSQL, between two lives
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not yet accepting connections",
    "the database system is in recovery mode",
    # full for the moment, as at a deploy
    "remaining connection slots",
    "too many clients already",
    # Neon's proxy, before a compute that wakes up or moves
    "couldn't connect to compute node",
    "failed to acquire permit to connect",
    "terminating connection due to administrator command",
)


def passes(message: str) -> bool:
    """Whether what kept a connection from being made goes away by itself, soon; pure.

    libpq gives no SQLSTATE there, so it is read from the words.
    """
    return any(words in message.lower() for words in _PASSING)


def refuse_pooler(conninfo: str) -> None:
    """Refuse Neon's pooled host: locks, SET and long transactions do not survive behind it."""
    host = str(conninfo_to_dict(conninfo).get("host") or "")
    label, dot, domain = host.partition(".")
    if label.endswith(POOLER):
        direct = label.removesuffix(POOLER) + dot + domain
        raise Refused(
            f"{host} is a pooled host",
            expected="a direct connection: migrator holds locks and settings for a whole session",
            next_step=f"use {direct}",
            host=host,
            direct_host=direct,
        )


def refuse_unfit(conn: Connection, settings: Settings) -> None:
    """Refuse a session that cannot do migrator's work: behind a pooler, or on a read-only server.

    A pooler drops the settings that a session begins with, and hands the session to others after each
    transaction; docs/adr/0009 has the experiment. Ends the transaction, and sends no parameters.

    Raises:
        Refused: as above.
    """
    row = conn.execute(
        "SELECT current_setting('lock_timeout'), current_setting('client_connection_check_interval'), "
        "current_setting('transaction_read_only'), pg_is_in_recovery()"
    ).fetchone()
    conn.rollback()
    assert row is not None
    lock_timeout, interval, read_only, standby = row
    if (interval, _ms(lock_timeout)) != ("1s", settings.database.lock_timeout_ms):
        raise _pooled(f"the session does not have the settings it was opened with: {lock_timeout=}")
    if read_only == "on":
        why = "it is a standby" if standby else "default_transaction_read_only is on"
        raise Refused(
            f"the server is read-only: {why}",
            expected="a server that takes writes; nothing was changed",
            next_step="connect to the primary"
            if standby
            else "connect elsewhere, or let default_transaction_read_only be off for this role",
        )


def _ms(setting: str) -> int | None:
    """What PostgreSQL shows of a timeout, in milliseconds: 0, 500ms, 2s, 10min, 1h or 1d."""
    units = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
    number = setting.rstrip("adhimns")
    return int(number or 0) * units.get(setting.removeprefix(number), 1)


def _pooled(found: str) -> Refused:
    return Refused(
        f"a connection pooler lies between migrator and PostgreSQL: {found}",
        expected="a direct connection: migrator holds locks and settings for a whole session",
        next_step="use PostgreSQL's own host and port, not those of PgBouncer or its like",
    )


def shown(conninfo: str) -> str:
    """The conninfo as it may be shown: never with a password."""
    parts = conninfo_to_dict(conninfo)
    return make_conninfo("", **{k: v for k, v in parts.items() if k not in ("password", "options")})


def as_url(conninfo: str) -> str:
    """The conninfo, with its password, in the form that every driver takes; pure."""
    if conninfo.startswith(("postgresql://", "postgres://")):
        return conninfo
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    user, password = (quote(parts.pop(name, ""), safe="") for name in ("user", "password"))
    who = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host, port = parts.pop("host", ""), parts.pop("port", "")
    if host.startswith("/"):
        parts["host"] = host
        host = ""
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    name = parts.pop("dbname", "")
    rest = f"?{urlencode(parts, quote_via=quote)}" if parts else ""
    return f"postgresql://{who}{where}/{quote(name, safe='')}{rest}"


def translated(exc: psycopg.Error) -> MigratorError:
    """What an error of the driver means to the one who ran the command."""
    said = exc.diag.message_primary or str(exc).strip().splitlines()[0]
    again = "run the same command again: it goes on from what is committed"
    match exc:
        case psycopg.errors.InsufficientPrivilege():
            return MigratorError(
                f"PostgreSQL refuses: {said}",
                next_step="migrator doctor says which grant is missing",
                sqlstate=exc.sqlstate,
            )
        case psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return Busy(f"a lock was not to be had: {said}", next_step=again, sqlstate=exc.sqlstate)
        case psycopg.errors.ReadOnlySqlTransaction():
            return Refused(
                f"the server is read-only: {said}",
                expected="a server that takes writes",
                next_step="connect to the primary, then run the same command again",
                sqlstate=exc.sqlstate,
            )
        case psycopg.errors.DiskFull():
            return MigratorError(
                f"the server has no room left: {said}",
                expected="free space on its disk",
                next_step=f"free some, then {again}",
                sqlstate=exc.sqlstate,
            )
        case psycopg.OperationalError() if exc.sqlstate is None or exc.sqlstate[:2] in ("57", "08"):
            return CannotConnect(f"the connection to PostgreSQL was lost: {said}", next_step=again)
        case _:
            return MigratorError(
                f"PostgreSQL refuses a statement: {said}",
                sqlstate=exc.sqlstate,
                hint=exc.diag.message_hint,
            )


def _unreachable(exc: psycopg.OperationalError, conninfo: str) -> CannotConnect:
    text = str(exc).lower()
    where = shown(conninfo) or "the server that PG* names"
    if "password authentication failed" in text or "no password supplied" in text:
        found, step = (
            "PostgreSQL does not accept the user or the password",
            ("check the user and the password in MIGRATOR_DATABASE_URL"),
        )
    elif "does not exist" in text and "database" in text:
        found, step = "there is no such database", "create it, or correct the URL"
    elif "refused" in text or "no such file" in text or "timeout" in text or "timed out" in text:
        found, step = (
            "no PostgreSQL answers",
            ("start it or correct the URL; to try migrator without one: migrator sandbox up"),
        )
    elif "translate host name" in text or "resolve host" in text or "name or service" in text:
        found, step = "the host's name does not resolve", "correct the host in the URL"
    else:
        found, step = f"PostgreSQL refused the connection: {str(exc).splitlines()[-1].strip()}", ""
    return CannotConnect(f"{found} ({where})", next_step=step, server=where)
