"""What the database says has been applied: Alembic's version table and the ledger together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

from migrator.errors import Refused
from migrator.postgres import ledger
from migrator.postgres.connect import Connection
from migrator.settings import Migrations


@dataclass(frozen=True)
class Applied:
    """The revisions that the version table names, and the ledger's entries, oldest first.

    Between the branches of a history and their merge the table names several.
    """

    heads: tuple[str, ...]
    entries: tuple[ledger.Entry, ...]

    @property
    def version(self) -> str | None:
        """The version table's word, for messages."""
        return ", ".join(self.heads) or None

    @cached_property
    def standing(self) -> tuple[ledger.Entry, ...]:
        """The entries of revisions that are applied now, each after those it revises.

        No rollback has undone them. That is their order in the ledger, but for a baseline that was
        written after later revisions had been applied.
        """
        undone = {entry.undoes for entry in self.entries}
        return _after_parents(
            entry
            for entry in self.entries
            if entry.act in ("up", "baseline") and entry.entry not in undone
        )


def _after_parents(entries: Iterable[ledger.Entry]) -> tuple[ledger.Entry, ...]:
    waiting = {entry.subject: entry for entry in entries}
    placed: list[ledger.Entry] = []
    for subject in list(waiting):
        todo = [subject]
        while todo:
            entry = waiting.get(todo[-1])
            below = [p for p in entry.parents if p in waiting] if entry else []
            if entry and not below:
                placed.append(waiting.pop(entry.subject))
            todo = [*todo, *below] if below else todo[:-1]
    return tuple(placed)


def read(conn: Connection, migrations: Migrations) -> Applied:
    """Read both, in one snapshot where the caller's transaction has one; read-only.

    A version table without a ledger is an existing Alembic database: what it names was applied
    without an entry.

    Raises:
        Refused: version table and ledger disagree.
    """
    applied = read_unchecked(conn, migrations)
    _refuse_disagreement(applied, migrations.version_table)
    return applied


def read_unchecked(conn: Connection, migrations: Migrations) -> Applied:
    """Read both as they are, even where they disagree; read-only."""
    return Applied(heads(conn, migrations), tuple(ledger.entries(conn)))


def heads(conn: Connection, migrations: Migrations) -> tuple[str, ...]:
    """What the version table names; nothing where it is empty or absent. Read-only."""
    table = version_table(migrations)
    found = conn.execute("SELECT to_regclass(%s)", (table.as_string(conn),)).fetchone()
    if found is None or found[0] is None:
        return ()
    query = sql.SQL("SELECT version_num FROM {} ORDER BY 1").format(table)
    return tuple(row[0] for row in conn.execute(query).fetchall())


def move_heads(
    conn: Connection, migrations: Migrations, *, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """Let the version table name `after` in place of `before`, inside the caller's transaction.

    Raises:
        Refused: the table does not name `before`.
    """
    table = version_table(migrations)
    gone = [name for name in before if name not in after]
    come = [name for name in after if name not in before]
    drop = sql.SQL("DELETE FROM {} WHERE version_num = ANY(%s)").format(table)
    if conn.execute(drop, (gone,)).rowcount != len(gone):
        raise Refused(
            f"{migrations.version_table} does not name {', '.join(before)}",
            expected=f"{', '.join(before)}, the newest in the ledger",
            next_step="look at migrator history: somebody else has changed the database meanwhile",
        )
    for name in come:
        conn.execute(sql.SQL("INSERT INTO {} (version_num) VALUES (%s)").format(table), (name,))


def stamp(conn: Connection, migrations: Migrations, revision: str) -> None:
    """Let the version table, made as Alembic makes it, name a revision; it names nothing yet."""
    table = version_table(migrations)
    create = sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT {} PRIMARY KEY (version_num))"
    ).format(table, sql.Identifier(f"{migrations.version_table}_pkc"))
    conn.execute(create)
    conn.execute(sql.SQL("INSERT INTO {} (version_num) VALUES (%s)").format(table), (revision,))


def heads_without(applied: Applied, entry: ledger.Entry) -> tuple[str, ...]:
    """What the version table names once this entry, the newest, is undone; pure.

    A parent of the undone revision becomes a head again, unless another head stands on it.

    Raises:
        Refused: the ledger does not tell what another head stands on.
    """
    others = [head for head in applied.heads if head != entry.subject]
    held = _stood_on(applied, others)
    unsure = [parent for parent in entry.parents if parent not in held]
    if others and unsure and _has_gap(applied, others):
        raise Refused(
            f"the ledger does not say what {' and '.join(others)} stand on, so it is not known "
            f"whether undoing {entry.subject} leaves {' and '.join(unsure)} a head",
            expected="an entry for every applied revision",
            next_step=f"migrator baseline {others[0]}, then run this again",
        )
    return tuple(sorted({*others, *unsure}))


def _stood_on(applied: Applied, names: list[str]) -> frozenset[str]:
    """These revisions and what they stand on, as far as the ledger tells."""
    parents = {entry.subject: entry.parents for entry in applied.standing}
    found: set[str] = set()
    todo = list(names)
    while todo:
        found.add(current := todo.pop())
        todo += [parent for parent in parents.get(current, ()) if parent not in found]
    return frozenset(found)


def _has_gap(applied: Applied, names: list[str]) -> bool:
    return not _stood_on(applied, names) <= {entry.subject for entry in applied.standing}


def version_table(migrations: Migrations) -> sql.Identifier:
    """Alembic's version table, as the settings name it."""
    schema = migrations.version_table_schema
    return sql.Identifier(*filter(None, (schema, migrations.version_table)))


def _refuse_disagreement(applied: Applied, version_table: str) -> None:
    """The ledger's heads and the table's must be the same, as far as the ledger goes."""
    if not applied.standing:
        return
    stood_on = {parent for entry in applied.standing for parent in entry.parents}
    tops = {entry.subject for entry in applied.standing} - stood_on
    named = set(applied.heads)
    if tops <= named and (len(named) == 1 or not named & stood_on):
        return
    newest = applied.standing[-1].subject
    raise Refused(
        f"{version_table} names {applied.version or 'no revision'}, "
        f"but the newest revision in the ledger is {newest}",
        expected="the same in both: migrator writes them in one transaction",
        next_step=f"find out who changed {version_table} by hand or by plain alembic "
        f"(migrator history); where the schema is that of {newest}, set version_num back to it; "
        f"where plain alembic has gone further, migrator baseline {applied.version or newest}",
        version=applied.version,
        ledger=newest,
    )
