"""Check everything that a deploy needs, before it needs it; read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from migrator.errors import MigratorError, Refused
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect, shown

if TYPE_CHECKING:
    from migrator.settings import Settings

OLDEST_POSTGRES = 15
SESSIONS_BESIDE_WORKERS = 4


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do about it. `exit_code` says how bad a failure is."""

    check: str
    verdict: Literal["ok", "warning", "failed"]
    found: str
    next_step: str = ""
    exit_code: int = 0


def examine(settings: Settings) -> list[Finding]:
    """Run every check; one that cannot run is a finding, and the others still run."""
    found: list[Finding] = []
    for name, check in _CHECKS.items():
        try:
            found += check(settings)
        except MigratorError as exc:
            said = f"{exc.found}; expected: {exc.expected}" if exc.expected else exc.found
            found.append(Finding(name, "failed", said, exc.next_step, exc.exit_code))
    return found


def _database(settings: Settings) -> Iterator[Finding]:
    with connect(settings, "doctor") as conn:
        conn.read_only = True
        yield Finding("database", "ok", f"connected to {shown(settings.conninfo) or 'PG*'}")
        yield _version(conn)
        yield _writable(conn)
        yield from _privileges(conn, settings)
        yield _connections(conn, settings)
        there = ledger.exists(conn)
        yield Finding(
            "ledger", "ok", "present" if there else "not there yet; the first run makes it"
        )


def _version(conn: Connection) -> Finding:
    major = conn.info.server_version // 10000
    if major < OLDEST_POSTGRES:
        step = f"migrator is tested on PostgreSQL {OLDEST_POSTGRES} to 18: upgrade the server"
        return Finding("server version", "failed", f"PostgreSQL {major}", step, 1)
    return Finding("server version", "ok", f"PostgreSQL {major}")


def _writable(conn: Connection) -> Finding:
    row = conn.execute(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')"
    ).fetchone()
    if row is not None and (row[0] or row[1] == "on"):
        return Finding("writable", "failed", "the server is read-only", "use the primary's URL", 1)
    return Finding("writable", "ok", "yes")


def _privileges(conn: Connection, settings: Settings) -> Iterator[Finding]:
    row = conn.execute(
        """SELECT current_user, current_database(),
                  has_database_privilege(current_database(), 'CREATE')"""
    ).fetchone()
    assert row is not None
    role, database, may_create = row
    if may_create:
        yield Finding("privileges", "ok", f"{role} may create schemas in {database}")
    else:
        grant = f'GRANT CREATE ON DATABASE "{database}" TO "{role}"'
        yield Finding("privileges", "failed", f"{role} may not create schemas", grant, 1)
    schema = settings.projections.schema_
    row = conn.execute(
        """SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s""",
        (schema,),
    ).fetchone()
    if row is None:
        step = f'CREATE SCHEMA "{schema}", or correct [projections] schema'
        yield Finding("schema", "failed", f"there is no schema {schema}", step, 1)
    elif not row[0]:
        grant = f'GRANT CREATE ON SCHEMA "{schema}" TO "{role}"'
        yield Finding("schema", "failed", f"{role} may not create tables in {schema}", grant, 1)
    else:
        yield Finding("schema", "ok", f"{role} may create tables in {schema}")


def _connections(conn: Connection, settings: Settings) -> Finding:
    row = conn.execute(
        """SELECT current_setting('max_connections')::int
                  - current_setting('superuser_reserved_connections')::int - count(*)
           FROM pg_stat_activity WHERE backend_type = 'client backend'"""
    ).fetchone()
    free = row[0] if row else 0
    needed = settings.projections.workers + SESSIONS_BESIDE_WORKERS
    if free < needed:
        step = "lower [projections] workers, or raise max_connections"
        return Finding("connections", "warning", f"{free} free, a rebuild uses {needed}", step)
    return Finding("connections", "ok", f"{free} free, a rebuild uses {needed}")


def _kafka(settings: Settings) -> Iterator[Finding]:
    kafka = settings.kafka_config
    from migrator.kafka import topics

    count = topics.count(kafka)
    yield Finding("kafka", "ok", f"connected to {kafka['bootstrap.servers']}; topics: {count}")


def _migrations(settings: Settings) -> Iterator[Finding]:
    from migrator.migrations import check, history

    if not settings.migrations_dir.is_dir():
        yield Finding(
            "migrations",
            "warning",
            f"there is no folder {settings.migrations_dir}",
            'migrator new "MESSAGE" starts one',
        )
        return
    files = history.read(settings)
    for revision in files.revisions:
        for problem in check.problems(files, revision):
            step = "correct the file (docs/migrations.md)"
            yield Finding(f"revision {revision.id}", "failed", problem, step, Refused.exit_code)
    yield Finding("migrations", "ok", f"{len(files.revisions)} in {files.directory}")


def _projections(settings: Settings) -> Iterator[Finding]:
    from migrator.projections import rebuild, registry

    if not settings.projections_dir.is_dir():
        yield Finding(
            "projections",
            "warning",
            f"there is no folder {settings.projections_dir}",
            "docs/projections.md shows how one begins",
        )
        return
    for registered in registry.load(settings.projections_dir).values():
        try:
            seen = rebuild.look(settings, [registered], rebuild.Options(), None)
            seen.refuse()
        except Refused as exc:
            yield Finding(f"projection {registered.name}", "warning", exc.found, exc.next_step)
            continue
        except MigratorError as exc:
            found = f"{exc.found}; expected: {exc.expected}" if exc.expected else exc.found
            name = f"projection {registered.name}"
            yield Finding(name, "failed", found, exc.next_step, exc.exit_code)
            continue
        (topic,) = seen.topics.values()
        yield Finding(
            f"projection {registered.name}",
            "ok",
            f"topic {topic.name}, {len(topic.partitions)} partitions, "
            f"up to {topic.events:,} events",
        )


_CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "database": _database,
    "kafka": _kafka,
    "migrations": _migrations,
    "projections": _projections,
}
