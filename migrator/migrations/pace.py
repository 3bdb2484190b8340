"""How fast a backfill goes: the size of its pages, its rate, and when it pauses."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from migrator.postgres.connect import Connection

LARGEST_BATCH = 50_000
LOOK_EVERY_S = 1.0
PAUSE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a backfill leaves to others; None lifts a limit."""

    target_ms: int = 200
    max_rows_per_s: float | None = None
    max_replay_lag_s: float | None = 10.0
    max_replay_lag_bytes: int | None = 256 * 1024 * 1024
    max_active: float | None = 0.8
    max_lock_waiters: int | None = 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the server does now; None where it does not say, as to a role that may not see it."""

    replay_lag_s: float | None
    replay_lag_bytes: int | None
    active: int
    max_connections: int
    lock_waiters: int


def adapted(batch: int, elapsed_s: float, limits: Limits) -> int:
    """The size of the next page, from how long this one took; at most twice or half of it. Pure."""
    factor = limits.target_ms / 1000 / max(elapsed_s, 1e-6)
    return max(1, min(LARGEST_BATCH, round(batch * min(2.0, max(0.5, factor)))))


def rest_s(rows: int, elapsed_s: float, limits: Limits) -> float:
    """How long to wait after a page, so that the rows stay under the rate. Pure."""
    if limits.max_rows_per_s is None:
        return 0.0
    return max(0.0, rows / limits.max_rows_per_s - elapsed_s)


def why_pause(load: Load, limits: Limits) -> str | None:
    """Say which limit the server's load has passed, or None. Pure."""
    if _above(load.replay_lag_s, limits.max_replay_lag_s):
        return f"a replica is {load.replay_lag_s:.1f} s behind"
    if _above(load.replay_lag_bytes, limits.max_replay_lag_bytes):
        return f"a replica is {load.replay_lag_bytes:,} bytes of WAL behind"
    if limits.max_active is not None and load.active > limits.max_active * load.max_connections:
        return f"{load.active} of {load.max_connections} connections are active"
    if _above(load.lock_waiters, limits.max_lock_waiters):
        many = load.lock_waiters
        sessions = "1 session waits" if many == 1 else f"{many} sessions wait"
        return f"{sessions} for locks"
    return None


def look(conn: Connection) -> Load:
    """Read the server's load; read-only, waits for nothing.

    Only physical replicas count: a consumer of logical changes may be behind for good.
    """
    query = files("migrator.postgres").joinpath("sql/load.sql").read_bytes()
    row = conn.execute(query).fetchone()
    assert row is not None
    lag_s, lag_bytes, active, connections, waiters = row
    return Load(
        replay_lag_s=lag_s,
        replay_lag_bytes=lag_bytes,
        active=active,
        max_connections=connections,
        lock_waiters=waiters,
    )


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
