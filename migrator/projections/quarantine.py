"""migrator.quarantine: the events that a build goes without, each with its bytes.

A rebuild commits them with the rows and the position of the stretch that they lie in, so that a
killed run has neither lost nor doubled one. They stay as long as their build does. Released means
that somebody has seen to one: it is no longer counted; a rebuild reads every event again anyway.

Those that a projector has put there hold their key back: `held_behind` is the entry that a key's
events wait behind, its own for the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres import layout, ledger
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections.events import shown_key

if TYPE_CHECKING:
    from migrator.projections.poison import Poison

SHOWN_KEYS = 5


@dataclass(frozen=True)
class Quarantined:
    """An event was put into quarantine, and that is committed."""

    projection: str
    topic: str
    partition: int
    offset: int
    key: str | None
    error: str


@dataclass(frozen=True)
class Held:
    """One row of migrator.quarantine; `headers` are pairs of name and value in hex."""

    entry: int
    build: int
    projection: str
    topic: str
    partition: int
    event_offset: int
    key: bytes | None
    headers: list[tuple[str, str | None]]
    value: bytes | None
    event_time: datetime | None
    event_type: str | None
    error: str
    held_behind: int | None
    quarantined_at: datetime
    released_at: datetime | None
    released_by: str | None
    reason: str | None


def told(projection: str, poison: Poison) -> Quarantined:
    """What a listener hears of an event that was put into quarantine."""
    key = shown_key(poison.key)
    return Quarantined(
        projection,
        poison.topic,
        poison.partition,
        poison.offset,
        key if isinstance(key, str) else None,
        poison.error,
    )


_INSERT = """
INSERT INTO migrator.quarantine
  (build, topic, partition, event_offset, key, headers, value, event_time, event_type, error,
   held_behind)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


def room(conn: Connection, build: int, limit: int) -> int:
    """How many more events a build may go without; read-only."""
    return max(limit - count(conn, build), 0)


def hold(conn: Connection, build: int, events: Sequence[Poison], limit: int) -> None:
    """Put events into the build's quarantine, in the caller's transaction.

    Raises:
        MigratorError: with those that other workers have put there, they are more than `limit`.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            _INSERT,
            # Within a batch those that do not decode are found before those that do not fold.
            [_row(build, event) for event in sorted(events, key=lambda e: (e.topic, e.offset))],
        )
    # One worker at a time counts: what others hold uncommitted would not be seen.
    conn.execute("SELECT FROM migrator.build WHERE build = %s FOR NO KEY UPDATE", (build,))
    if count(conn, build) > limit:
        last = events[-1]
        raise too_many(MigratorError(f"{last.error} ({last.place})"), limit)


def held_keys(
    conn: Connection, build: int, keys: Iterable[bytes | None] | None = None
) -> dict[bytes | None, int]:
    """The keys (of these, or all) whose events wait, each with the entry that they wait behind."""
    rows = conn.execute(
        """SELECT key, held_behind FROM migrator.quarantine
           WHERE build = %(build)s AND held_behind = entry AND released_at IS NULL
             AND (%(keys)s::bytea[] IS NULL OR key = ANY(%(keys)s) OR key IS NULL)""",
        {"build": build, "keys": None if keys is None else list(keys)},
    ).fetchall()
    return dict(rows)


def hold_back(conn: Connection, build: int, event: Poison) -> int:
    """Put an event into quarantine that its key waits behind; returns its entry."""
    row = conn.execute(_INSERT + "RETURNING entry", _row(build, event)).fetchone()
    assert row is not None
    entry: int = row[0]
    conn.execute("UPDATE migrator.quarantine SET held_behind = entry WHERE entry = %s", (entry,))
    return entry


def hold_behind(conn: Connection, build: int, events: Sequence[tuple[int, Poison]]) -> None:
    """Put events into quarantine, in their order, each to wait behind an entry of its key."""
    if events:
        with conn.cursor() as cursor:
            cursor.executemany(
                _INSERT, [_row(build, event, behind=entry) for entry, event in events]
            )


def waiting(conn: Connection, build: int) -> tuple[int, int]:
    """How many events of a build a projector could not fold, and how many wait behind them."""
    row = conn.execute(
        """SELECT count(*) FILTER (WHERE held_behind = entry),
                  count(*) FILTER (WHERE held_behind <> entry)
           FROM migrator.quarantine WHERE build = %s AND released_at IS NULL""",
        (build,),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def refuse_too_many(conn: Connection, build: int, limit: int) -> None:
    """Let nothing more be put aside where more than `limit` events wait already.

    Raises:
        MigratorError: they do; not one key is bad, but the release or the topic.
    """
    poisoned, behind = waiting(conn, build)
    if poisoned + behind > limit:
        raise MigratorError(
            f"{poisoned + behind:,} events are in quarantine, of which {behind:,} wait behind others",
            expected=f"at most {limit:,} ([follow] quarantine)",
            next_step="migrator quarantine list shows what is wrong with them; correct it, release "
            "them, or allow more, then start it again",
            build=build,
        )


def too_many(stopped: MigratorError, limit: int, before: Sequence[Poison] = ()) -> MigratorError:
    """The error of an event for which the quarantine has no room; `before` are not committed."""
    lines = "".join(f"\n  before it: {each.error} ({each.place})" for each in before[-SHOWN_KEYS:])
    return MigratorError(
        f"{stopped.found}; the quarantine is full{lines}",
        expected=f"at most {limit} events that cannot be folded (--quarantine {limit})",
        next_step="correct the event class or the handler, or allow more, then run the same command "
        "again; migrator quarantine list shows what is committed; live is untouched",
        **stopped.data,
    )


def _row(build: int, event: Poison, behind: int | None = None) -> tuple[object, ...]:
    headers = [
        (_text(name), None if value is None else value.hex()) for name, value in event.headers
    ]
    return (
        build,
        event.topic,
        event.partition,
        event.offset,
        event.key,
        Jsonb(headers),
        event.value,
        event.timestamp,
        None if event.type is None else _text(event.type),
        _text(event.error),
        behind,
    )


def _text(said: str) -> str:
    """What PostgreSQL's text takes: no NUL, no half of a surrogate pair."""
    return said.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def count(conn: Connection, build: int) -> int:
    """How many events a build goes without, released or not; read-only."""
    row = conn.execute(
        "SELECT count(*) FROM migrator.quarantine WHERE build = %s", (build,)
    ).fetchone()
    return row[0] if row else 0


def counts(conn: Connection) -> dict[int, int]:
    """How many events each build goes without, released ones left out; read-only."""
    if "quarantine" not in layout.present(conn):
        return {}
    rows = conn.execute(
        """SELECT build, count(*) FROM migrator.quarantine
           WHERE released_at IS NULL GROUP BY build"""
    ).fetchall()
    return dict(rows)


def summary(conn: Connection, build: int) -> str | None:
    """Say how many events a build goes without, and some of their keys; None where it is none."""
    rows = conn.execute(
        """SELECT key, count(*) OVER () FROM migrator.quarantine
           WHERE build = %s ORDER BY entry LIMIT %s""",
        (build, SHOWN_KEYS),
    ).fetchall()
    if not rows:
        return None
    number = rows[0][1]
    keys = ", ".join(sorted({repr(shown_key(key)) for key, _ in rows}))
    more = ", ..." if number > SHOWN_KEYS else ""
    return f"{number:,} in quarantine, of key {keys}{more}"


_SELECT = """
SELECT q.entry, q.build, b.projection, q.topic, q.partition, q.event_offset, q.key, q.headers, q.value,
       q.event_time, q.event_type, q.error, (to_jsonb(q) ->> 'held_behind')::bigint AS held_behind,
       q.quarantined_at, q.released_at, q.released_by, q.reason
FROM migrator.quarantine AS q JOIN migrator.build AS b USING (build)
"""


def entries(
    conn: Connection,
    *,
    build: int | None = None,
    projection: str | None = None,
    released: bool = False,
) -> list[Held]:
    """The events in quarantine, oldest first; with `released`, those that were released, too."""
    if "quarantine" not in layout.present(conn):
        return []
    query = _SELECT + (
        """WHERE (%(build)s::bigint IS NULL OR q.build = %(build)s)
             AND (%(projection)s::text IS NULL OR b.projection = %(projection)s)
             AND (%(released)s OR q.released_at IS NULL)
           ORDER BY q.entry"""
    )
    parameters = {"build": build, "projection": projection, "released": released}
    with conn.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def entry(conn: Connection, number: int) -> Held:
    """One event in quarantine, released or not; read-only.

    Raises:
        UsageError: there is none of this number.
    """
    if "quarantine" in layout.present(conn):
        with conn.cursor(row_factory=class_row(Held)) as cursor:
            found = cursor.execute((_SELECT + "WHERE q.entry = %s").encode(), (number,)).fetchone()
        if found is not None:
            return found
    raise UsageError(
        f"there is no entry {number} in quarantine", next_step="migrator quarantine list --released"
    )


def release(conn: Connection, numbers: Sequence[int], reason: str) -> list[Held]:
    """Mark entries as seen to, all or none; those that were before stay as they are.

    Raises:
        UsageError: there is no such entry.
        Refused: the build of one is not finished, and will go on without its event.
    """
    found = releasable(conn, numbers)
    mark(conn, numbers, reason)
    return found


def mark(conn: Connection, numbers: Sequence[int], reason: str) -> None:
    """Mark entries as seen to, those that were before apart."""
    conn.execute(
        """UPDATE migrator.quarantine
           SET released_at = clock_timestamp(), released_by = %s, reason = %s
           WHERE entry = ANY(%s) AND released_at IS NULL""",
        (ledger.client(), reason, list(numbers)),
    )


def behind(conn: Connection, head: int) -> list[Held]:
    """What waits behind an entry, in the order in which it came; read-only."""
    query = _SELECT + (
        "WHERE q.held_behind = %s AND q.entry <> q.held_behind AND q.released_at IS NULL "
        "ORDER BY q.entry"
    )
    with conn.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(query.encode(), (head,)).fetchall()


def hold_at(conn: Connection, head: int, entry: int, error: str) -> None:
    """Let an entry that waited behind `head` be what the others wait behind; `error` is its own."""
    conn.execute(
        """UPDATE migrator.quarantine
           SET held_behind = %(entry)s,
               error = CASE entry WHEN %(entry)s THEN %(error)s ELSE error END
           WHERE held_behind = %(head)s AND entry >= %(entry)s AND released_at IS NULL""",
        {"head": head, "entry": entry, "error": _text(error)},
    )


def releasable(conn: Connection, numbers: Sequence[int]) -> list[Held]:
    """The entries, where all of them may be released; read-only. Raises as `release`."""
    found = [entry(conn, number) for number in numbers]
    for each in found:
        build = builds.numbered(conn, each.build)
        if build is not None and build.state in builds.UNFINISHED:
            raise Refused(
                f"entry {each.entry} is of build {each.build} of {each.projection}, "
                f"which is {build.state}",
                expected="a finished build: this one goes on without the event",
                next_step="to read the event again: migrator rebuild-projections --restart "
                f"--projection {each.projection}",
                build=each.build,
            )
    return found
