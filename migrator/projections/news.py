"""migrator.progress: what a replay last said of itself, as `status` in another process reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from migrator.postgres import layout
from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class News:
    """How far a run has read one partition for a build, by its own account; not committed."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    events_per_s: float | None
    seconds_left: float | None
    heard_at: datetime
    news_age_s: float


def read(conn: Connection) -> dict[int, tuple[News, ...]]:
    """The last news of every build that has any, by topic and partition; read-only."""
    if "progress" not in layout.present(conn):
        return {}
    builds = conn.execute("SELECT DISTINCT build FROM migrator.progress").fetchall()
    return {build: _read(conn, build) for (build,) in builds}


def _read(conn: Connection, build: int) -> tuple[News, ...]:
    with conn.cursor(row_factory=class_row(News)) as cursor:
        return tuple(
            cursor.execute(
                """SELECT topic, partition, next_offset, end_offset, events_per_s, seconds_left,
                          heard_at, extract(epoch FROM clock_timestamp() - heard_at)::float8
                            AS news_age_s
                   FROM migrator.progress WHERE build = %s ORDER BY topic, partition""",
                (build,),
            )
        )
