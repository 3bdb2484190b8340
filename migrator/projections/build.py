"""A build: one generation of a projection, as a row of migrator.build and a schema of its own.

    created → replaying → loaded → verified → live → archived → dropped;  failed, aborted

Every step locks the row, verifies the state, acts, and saves, in one transaction: killed at any line,
the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from migrator.errors import Busy, MigratorError, Refused
from migrator.kafka.log import Part, Slice
from migrator.kafka.topics import PartitionRange, TopicRange
from migrator.postgres import ledger
from migrator.postgres.connect import Connection
from migrator.projections import shadow
from migrator.projections.registry import Registered

State = Literal[
    "created", "replaying", "loaded", "verified", "live", "archived", "dropped", "failed", "aborted"
]
UNFINISHED: tuple[State, ...] = ("created", "replaying", "loaded", "verified")


@dataclass(frozen=True)
class Build:
    """One row of migrator.build."""

    build: int
    projection: str
    state: State
    definition_hash: str
    target_schema: str
    table_name: str
    rows: int | None
    error: str | None

    @property
    def schema(self) -> str:
        """The schema that holds the table until it is live, and again when it is archived."""
        return f"migrator_build_{self.build}"

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table_name)

    @property
    def target(self) -> sql.Identifier:
        return sql.Identifier(self.target_schema, self.table_name)


_COLUMNS = ", ".join(f.name for f in fields(Build))


@dataclass(frozen=True)
class Made:
    """What a build's definition gave its table: the names of columns, and of indexes and constraints.

    What the live table has beside these was added by hand.
    """

    columns: list[str]
    names: list[str]


@dataclass(frozen=True)
class Position:
    """How far a build has read one partition; committed with its rows."""

    build: int
    topic: str
    partition: int
    topic_id: str
    next_offset: int
    end_offset: int
    events: int
    rows: int

    @property
    def lag(self) -> int:
        return self.end_offset - self.next_offset


def find(conn: Connection, projection: str, states: Iterable[State]) -> list[Build]:
    """The projection's builds in these states, newest first; read-only."""
    return _select(conn, "projection = %s AND state = ANY(%s)", (projection, list(states)))


def every(conn: Connection) -> list[Build]:
    """Every build that is not dropped or aborted, newest first; read-only."""
    return _select(conn, "state <> ALL(%s)", (["dropped", "aborted"],))


def _select(conn: Connection, where: str, parameters: tuple[Any, ...]) -> list[Build]:
    query = f"SELECT {_COLUMNS} FROM migrator.build WHERE {where} ORDER BY build DESC"  # noqa: S608
    with conn.cursor(row_factory=class_row(Build)) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def numbered(conn: Connection, build: int) -> Build | None:
    """The build of this number, in whatever state; read-only."""
    return next(iter(_select(conn, "build = %s", (build,))), None)


def parts(conn: Connection, build: int) -> dict[str, str] | None:
    """The hashes of the parts of the build's definition; None where an older release made it."""
    row = conn.execute(
        # An older layout has no such column.
        "SELECT to_jsonb(b) -> 'definition_parts' FROM migrator.build AS b WHERE build = %s",
        (build,),
    ).fetchone()
    return row[0] if row else None


def git_sha(conn: Connection, build: Build) -> str | None:
    """The commit that the build was made from, where that was known; read-only."""
    row = conn.execute(
        "SELECT git_sha FROM migrator.build WHERE build = %s", (build.build,)
    ).fetchone()
    return row[0] if row else None


def positions(conn: Connection, build: int) -> list[Position]:
    """The build's positions by topic and partition; read-only."""
    names = ", ".join(f.name for f in fields(Position))
    query = f"SELECT {names} FROM migrator.position WHERE build = %s ORDER BY topic, partition"  # noqa: S608
    with conn.cursor(row_factory=class_row(Position)) as cursor:
        return cursor.execute(query.encode(), (build,)).fetchall()


def lock(conn: Connection, build: int, *expected: State) -> Build:
    """Lock the row until the transaction ends, and verify its state.

    Raises:
        Refused: the build is in another state, since another run has moved it.
        Busy: another session holds it.
    """
    query = f"SELECT {_COLUMNS} FROM migrator.build WHERE build = %s FOR UPDATE"  # noqa: S608
    with conn.cursor(row_factory=class_row(Build)) as cursor:
        # Longer than a killed run's session can outlive it (client_connection_check_interval).
        cursor.execute("SELECT set_config('lock_timeout', '10s', true)")
        try:
            found = cursor.execute(query.encode(), (build,)).fetchone()
        except psycopg.errors.LockNotAvailable as exc:
            raise Busy(
                f"another session works on build {build}",
                next_step="wait for it, then run the same command again",
                build=build,
            ) from exc
    if found is None or found.state not in expected:
        raise Refused(
            f"build {build} is {found.state if found else 'gone'}",
            expected=" or ".join(expected),
            next_step="migrator status shows every build",
            build=build,
        )
    return found


def save(conn: Connection, build: Build, state: State, **values: Any) -> None:
    """Write the state that a step has reached, in that step's transaction."""
    assignments = [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values
    ]
    conn.execute(
        sql.SQL("UPDATE migrator.build SET {} WHERE build = %(build)s").format(
            sql.SQL(", ").join(
                [
                    sql.SQL("state = %(state)s"),
                    sql.SQL("changed_at = clock_timestamp()"),
                    *assignments,
                ]
            )
        ),
        {**values, "state": state, "build": build.build},
    )


def create(
    conn: Connection,
    registered: Registered,
    schema: str,
    topics: Sequence[TopicRange],
    allowed: Iterable[str] = (),
) -> Build:
    """Make the row, the schema, the empty shadow table and the positions, all or nothing."""
    definition = registered.definition
    with conn.transaction():
        row = conn.execute(
            """INSERT INTO migrator.build
                 (projection, state, definition_hash, definition_parts, target_schema, table_name,
                  git_sha, allowed)
               VALUES (%s, 'created', %s, %s, %s, %s, %s, %s) RETURNING build""",
            (
                registered.name,
                registered.hash,
                Jsonb(registered.parts),
                definition.schema or schema,
                definition.table.name,
                ledger.git_sha(),
                sorted(allowed) or None,
            ),
        ).fetchone()
        assert row is not None
        build = lock(conn, row[0], "created")
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(build.schema)))
        for table in dict.fromkeys((definition.table, definition.state)):
            _execute(conn, shadow.create_statements(table, build.schema))
        for topic, part in _partitions(topics):
            conn.execute(
                """INSERT INTO migrator.position
                     (build, topic, partition, topic_id, next_offset, end_offset)
                   VALUES (%s, %s, %s, %s, %s, %s)""",
                (build.build, topic.name, part.partition, topic.id, part.low, part.end),
            )
    return build


def _partitions(topics: Sequence[TopicRange]) -> Iterator[tuple[TopicRange, PartitionRange]]:
    return ((topic, part) for topic in topics for part in topic.partitions)


def allow(conn: Connection, build: Build, allowed: Iterable[str]) -> None:
    """Note what the preflight was told to allow, beside what it was told before; idempotent."""
    conn.execute(
        """UPDATE migrator.build
           SET allowed = (SELECT array_agg(DISTINCT name ORDER BY name)
                          FROM unnest(allowed || %(allowed)s::text[]) AS name)
           WHERE build = %(build)s AND %(allowed)s::text[] <> '{}'""",
        {"allowed": sorted(allowed), "build": build.build},
    )


def start_replay(conn: Connection, build: Build, topics: Sequence[TopicRange]) -> None:
    """Set the finish line of what is still to be read to the topics' present ends.

    Raises:
        Refused: a topic is another one than the build began with, or has grown partitions.
    """
    with conn.transaction():
        current = lock(conn, build.build, "created", "replaying")
        held = positions(conn, build.build)
        different = [each for topic in topics for each in differences(held, topic)]
        if different:
            raise Refused(
                f"build {build.build} of {build.projection} cannot go on: {different[0][1]}",
                expected="the same topic id, the same partitions, and every offset still to be read",
                next_step="migrator rebuild-projections --restart "
                f"--projection {build.projection} starts over",
            )
        for topic, part in _partitions(topics):
            conn.execute(
                """UPDATE migrator.position SET end_offset = %s
                   WHERE build = %s AND topic = %s AND partition = %s AND next_offset < end_offset""",
                (part.end, build.build, topic.name, part.partition),
            )
        save(conn, current, "replaying")


def differences(positions: Iterable[Position], topic: TopicRange) -> list[tuple[str, str]]:
    """Why a build with these positions cannot be read on from the topic: name and words. Pure."""
    held = {p.partition: p for p in positions if p.topic == topic.name}
    now = {p.partition: p for p in topic.partitions}
    ids = ", ".join(sorted({p.topic_id for p in held.values()}))
    if ids != topic.id:
        found = f"topic {topic.name} was deleted and made anew: its id is {topic.id}, and was {ids}"
        return [("recreated", found)]
    if len(held) != len(now):
        found = (
            f"topic {topic.name} has {len(now)} partitions now, and had {len(held)}: "
            "keys that were in one may be in another now"
        )
        return [("grown", found)]
    return [each for number in held for each in _moved(held[number], now[number], topic.name)]


def _moved(held: Position, now: PartitionRange, topic: str) -> Iterator[tuple[str, str]]:
    place = f"partition {held.partition} of topic {topic}"
    read = f"and the build has read up to {held.next_offset}"
    if held.lag > 0 and now.low > held.next_offset:
        yield "cut", f"{place} now begins at {now.low}, {read}"
    if now.end < held.next_offset:
        yield "shortened", f"{place} now ends at {now.end}, {read}"


def parts_left(conn: Connection, build: Build, topics: Sequence[str]) -> list[Part]:
    """What is still to be read: the partitions that are not at their end in every topic; read-only."""
    held = {(p.topic, p.partition): p for p in positions(conn, build.build)}
    parts = [
        tuple(
            Slice(number, held[topic, number].next_offset, held[topic, number].end_offset)
            for topic in topics
        )
        for number in sorted({partition for _, partition in held})
    ]
    return [part for part in parts if any(each.start < each.end for each in part)]


def load(conn: Connection, build: Build, registered: Registered) -> None:
    """Merge what partitions have folded apart; build constraints and indexes; all or nothing.

    Raises:
        Refused: the rows break a constraint; where it is the primary key, a key was met in two
            partitions, which the message names.
    """
    with conn.transaction():
        current = lock(conn, build.build, "replaying")
        conn.execute("SET LOCAL maintenance_work_mem = '512MB'")
        merged = _merge(conn, build, registered)
        try:
            _execute(conn, shadow.load_statements(registered.definition.table, build.schema))
            _note_made(conn, build)
        except psycopg.errors.UniqueViolation as exc:
            raise _twice(exc, build, registered) from exc
        except psycopg.errors.IntegrityError as exc:
            raise Refused(
                f"the rows of {build.projection} break its constraint "
                f"{exc.diag.constraint_name}: {exc.diag.message_primary}",
                next_step="correct the projection, then run the same command again",
                detail=exc.diag.message_detail,
            ) from exc
        count = conn.execute(
            "SELECT coalesce(sum(rows), 0) FROM migrator.position WHERE build = %s", (build.build,)
        ).fetchone()
        rows = count[0] if count else 0
        save(conn, current, "loaded", rows=rows if merged is None else merged)


def _merge(conn: Connection, build: Build, registered: Registered) -> int | None:
    """Fill the shadow from the partitions' states; returns how many rows that makes."""
    statements = shadow.merge_statements(registered.definition, build.schema)
    if not statements:
        return None
    try:
        # What is kept of a state has as many rows as the table; other statements count none.
        rows = max(conn.execute(each.encode()).rowcount for each in statements)
    except psycopg.errors.NotNullViolation as exc:
        raise Refused(
            f"a row of {build.projection} has no value for {exc.diag.column_name}",
            expected="an event for it in every row, since it is NOT NULL",
            next_step="make it nullable (Mapped[... | None]), then run the same command again",
            detail=exc.diag.message_detail,
        ) from exc
    except psycopg.DataError as exc:
        raise Refused(
            f"PostgreSQL does not take a merged row of {build.projection}: "
            f"{exc.diag.message_primary}",
            expected="columns that hold what their reducers make",
            next_step="widen the column (type_=BigInteger for a total), then run the same command "
            "again",
        ) from exc
    return rows


def made(conn: Connection, build: Build) -> Made | None:
    """What the build's definition gave it, or None where an older migrator made it; read-only."""
    row = conn.execute(
        "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", (build.schema,)
    ).fetchone()
    try:
        return Made(**json.loads(row[0])) if row and row[0] else None
    except (ValueError, TypeError):
        return None  # somebody else's comment


def _note_made(conn: Connection, build: Build) -> None:
    """Keep it as the comment of the build's schema, which lives as long as the build."""
    row = conn.execute(
        """SELECT ARRAY(SELECT attname::text FROM pg_attribute
                        WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
                  ARRAY(SELECT relname::text FROM pg_index JOIN pg_class i ON i.oid = indexrelid
                        WHERE indrelid = t.oid
                        UNION SELECT conname::text FROM pg_constraint WHERE conrelid = t.oid
                        ORDER BY 1)
           FROM (SELECT %s::regclass AS oid) AS t""",
        (build.table.as_string(conn),),
    ).fetchone()
    assert row is not None
    conn.execute(
        sql.SQL("COMMENT ON SCHEMA {} IS {}").format(
            sql.Identifier(build.schema), json.dumps(vars(Made(*row)))
        )
    )


def vacuum(conn: Connection, build: Build) -> None:
    """Freeze the rows and take statistics, before any reader has to: idempotent, no transaction."""
    # Longer than deadlock_timeout, whose passing makes an autovacuum of the new table yield.
    conn.execute("SET lock_timeout = '10s'")
    conn.execute(sql.SQL("VACUUM (FREEZE, ANALYZE) {}").format(build.table))
    conn.execute("RESET lock_timeout")


@contextmanager
def recounted(conn: Connection, build: Build) -> Iterator[None]:
    """Keep the row's count of rows right over changes to the table; one that was wrong stays so."""
    was_right = _count(conn, build) == build.rows
    yield
    if was_right:
        conn.execute(
            "UPDATE migrator.build SET rows = %s WHERE build = %s",
            (_count(conn, build), build.build),
        )


def _count(conn: Connection, build: Build) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(build.table)).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def _twice(
    exc: psycopg.errors.UniqueViolation, build: Build, registered: Registered
) -> MigratorError:
    key = (exc.diag.message_detail or "").strip()
    if exc.diag.constraint_name != registered.definition.table.primary_key.name:
        return Refused(
            f"the rows of {build.projection} break {exc.diag.constraint_name}: {key}",
            next_step="correct the projection, then run the same command again",
        )
    return Refused(
        f"a key of {build.projection} was met in two partitions: {key}",
        expected="every key in one partition, or the order between its events is not defined",
        next_step="key the topic by it; if partitions were added, produce the topic anew",
    )


def fail(conn: Connection, build: Build, error: str, report: Any = None) -> None:
    """Record why a build cannot go on; its schema stays for a look, until the next rebuild."""
    with conn.transaction():
        current = lock(conn, build.build, *UNFINISHED)
        save(conn, current, "failed", error=error, report=Jsonb(report))


def drop(conn: Connection, build: Build, state: State) -> None:
    """Drop the build's schema with its tables, and what is kept of it beside its row; idempotent."""
    with conn.transaction():
        current = lock(conn, build.build, *UNFINISHED, "failed", "archived")
        conn.execute(drop_statement(build))
        forget(conn, current, state)


def forget(conn: Connection, build: Build, state: State) -> None:
    """Delete what is kept of a build beside its row, in the transaction that drops its tables."""
    for table in ("position", "progress", "quarantine"):
        conn.execute(
            sql.SQL("DELETE FROM {} WHERE build = %s").format(sql.Identifier("migrator", table)),
            (build.build,),
        )
    save(conn, build, state)


def drop_statement(build: Build) -> sql.Composed:
    return sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(build.schema))


def _execute(conn: Connection, statements: list[str]) -> None:
    for statement in statements:
        conn.execute(statement.encode())
