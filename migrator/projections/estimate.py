"""What a rebuild will take: events, bytes, rows, memory, disk and time, each only as good as it says."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrator.projections import build as builds
from migrator.projections.survey import Survey

if TYPE_CHECKING:
    from migrator.postgres.connect import Connection
    from migrator.projections.build import Build
    from migrator.projections.registry import Registered
    from migrator.settings import Settings

# Careful: small events and simple handlers on cores of 2.4 GHz do two to three times as many.
EVENTS_PER_S_OF_A_WORKER = 150_000
# A row in memory: an object with slots, its place in a dict, its values.
ROW_BYTES, COLUMN_BYTES = 250, 70
PROCESS_BYTES = 60_000_000
# A row on disk: its header, its place in the page and in the primary key's index.
STORED_ROW_BYTES = 60


@dataclass(frozen=True)
class Estimate:
    """Of one projection. `sampled` is how many events it stands on; where it is all, it is exact.

    Rows lie in [rows_low, rows_high]; `rows_from` says where they are from. Bytes are of keys and
    values, decompressed; `bytes_off` is how far off they may be (95 %). `disk_free_bytes` is None
    where it cannot be told, as on another machine.
    """

    projection: str
    topic: str
    own_key: bool
    sampled: int
    events: int
    bytes: int
    bytes_off: int
    rows_low: int
    rows: int
    rows_high: int
    rows_from: str
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int | None
    seconds: float


def estimate(
    settings: Settings,
    registered: Registered,
    seen: Survey,
    conn: Connection | None,
    max_mb_per_s: float | None,
) -> Estimate:
    """Reckon from what was sampled, and from the live table where there is one; read-only."""
    definition, workers = registered.definition, settings.projections.workers
    live = _live(conn, registered)
    size, off = seen.bytes_estimate
    events = seen.events_estimate
    low, rows, high, source = _rows(seen, definition.key is not None, live)
    at_once = min(workers, len(seen.topic.partitions)) / max(len(seen.topic.partitions), 1)
    row_bytes = ROW_BYTES + COLUMN_BYTES * len(definition.attributes)
    seconds = events / EVENTS_PER_S_OF_A_WORKER / min(workers, max(len(seen.topic.partitions), 1))
    if max_mb_per_s is not None:
        seconds = max(seconds, size / (max_mb_per_s * 1_000_000))
    mean = size / events if events else 0
    stored = live[1] if live else int(rows * (STORED_ROW_BYTES + mean))
    return Estimate(
        projection=registered.name,
        topic=seen.topic.name,
        own_key=definition.key is not None or bool(definition.reduced),
        sampled=seen.events,
        events=events,
        bytes=size,
        bytes_off=off,
        rows_low=low,
        rows=rows,
        rows_high=high,
        rows_from=source,
        memory_bytes=int(rows * at_once * row_bytes) + workers * PROCESS_BYTES,
        disk_bytes=stored,
        disk_free_bytes=_free(conn),
        seconds=round(seconds, 1),
    )


def _rows(seen: Survey, own_key: bool, live: tuple[int, int] | None) -> tuple[int, int, int, str]:
    if live:
        return live[0], live[0], live[0], "the live table"
    if own_key:
        return 0, seen.events_estimate, seen.events_estimate, "at most one an event"
    keys = seen.keys_estimate
    return keys.low, keys.estimate, keys.high, "all keys" if seen.complete else "sampled keys"


def _live(conn: Connection | None, registered: Registered) -> tuple[int, int] | None:
    """How many rows the live table was loaded with, and its size now."""
    found: list[Build] = builds.find(conn, registered.name, ["live"]) if conn else []
    if conn is None or not found:
        return None
    row = conn.execute(
        "SELECT pg_total_relation_size(to_regclass(%s)::oid)", (found[0].target.as_string(),)
    ).fetchone()
    return None if row is None or row[0] is None else (found[0].rows or 0, row[0])


def _free(conn: Connection | None) -> int | None:
    """Free bytes on the disk of PostgreSQL's data, where it runs here and lets us look."""
    if conn is None:
        return None
    row = conn.execute(
        """SELECT setting FROM pg_settings
           WHERE name = 'data_directory'
             AND coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)"""
    ).fetchone()
    try:
        return shutil.disk_usage(row[0]).free if row else None
    except OSError:
        return None
