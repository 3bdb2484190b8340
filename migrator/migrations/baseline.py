"""Adopt a database that other tools made: declare revisions applied, without running them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from migrator.errors import Refused, UsageError
from migrator.migrations import applied
from migrator.migrations.applied import Applied
from migrator.migrations.revision import PHASES, Revision
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.postgres.locks import deployer_lock
from migrator.settings import Settings

if TYPE_CHECKING:
    from migrator.migrations.history import History

LOCK = "deploy"


@dataclass(frozen=True)
class Plan:
    """What a baseline would write: the revisions that get an entry, oldest first, and the stamp."""

    revision: str
    version: str | None
    entries: tuple[Revision, ...]

    @property
    def stamps(self) -> bool:
        """Whether the version table is written: only where it names nothing yet."""
        return self.version is None


def plan(settings: Settings, revision: str) -> Plan:
    """Compare what is to be declared with what is there; read-only, no lock.

    Raises:
        UsageError: no file has that revision.
        Refused: version table, ledger or schema say otherwise.
    """
    from migrator.migrations import history

    files = history.read(settings)
    if revision not in files:
        raise UsageError.unknown("revision", revision, files.ids)
    with connect(settings, "baseline plan") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        state = applied.read_unchecked(conn, settings.migrations)
        if not state.heads:
            _refuse_empty(conn, settings, revision)
    _refuse_contradiction(settings, files, state, revision)
    recorded = {entry.subject for entry in state.standing}
    wanted = files.ancestry(revision) - recorded
    return Plan(revision, state.version, tuple(r for r in files.revisions if r.id in wanted))


def baseline(settings: Settings, revision: str) -> tuple[Plan, UUID]:
    """Write the entries, and the stamp where there is none, in one transaction; runs no revision.

    Repeated, it finds nothing to write and does no harm.

    Raises:
        UsageError, Refused: as `plan`.
        Busy: another run held the deployer lock until the deadline.
    """
    run = uuid4()
    with deployer_lock(settings, LOCK) as fence:
        planned = plan(settings, revision)
        with connect(settings, "baseline") as conn:
            for each in planned.entries:
                ledger.append(conn, _entry(each, run))
            if planned.stamps:
                applied.stamp(conn, settings.migrations, revision)
            fence.check(conn)
    return planned, run


def _entry(revision: Revision, run: UUID) -> ledger.NewEntry:
    return ledger.NewEntry(
        act="baseline",
        subject=revision.id,
        run=run,
        duration_ms=0,
        message=revision.message,
        phase=revision.phase if revision.phase in PHASES else None,
        revises=revision.revises,
        source_hash=revision.source_hash,
    )


def _refuse_contradiction(
    settings: Settings, files: History, state: Applied, revision: str
) -> None:
    table = settings.migrations.version_table
    if state.heads and revision not in state.heads:
        raise Refused(
            f"{table} names {state.version}, not {revision}",
            expected="the revision that the database is at: a baseline changes no schema",
            next_step=f"migrator baseline {state.heads[0]}, then migrator up"
            if state.heads[0] in files
            else f"take the checkout that has {state.version}",
            version=state.version,
        )
    beyond = [e.subject for e in state.standing if e.subject not in _held(files, state, revision)]
    if beyond:
        raise Refused(
            f"the ledger says that {', '.join(beyond)} is applied, and {revision} does not stand on it",
            expected="a ledger that goes no further than the baseline",
            next_step="migrator history shows who applied it",
            beyond=beyond,
        )


def _held(files: History, state: Applied, revision: str) -> frozenset[str]:
    names = [name for name in {*state.heads, revision} if name in files]
    return files.ancestry(*names)


_TABLES = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> %s
      AND n.nspname <> 'migrator' AND n.nspname <> 'information_schema'
      AND n.nspname !~ '^pg_')
"""


def _refuse_empty(conn: Connection, settings: Settings, revision: str) -> None:
    found = conn.execute(_TABLES, (settings.migrations.version_table,)).fetchone()
    if found == (False,):
        raise Refused(
            "this database holds no table at all",
            expected=f"the schema that the revisions up to {revision} make",
            next_step="check that the database is the right one; an empty one needs migrator up",
        )
