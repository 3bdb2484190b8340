"""What the database says has been applied: Alembic's version table and the ledger together."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from migrator.errors import Refused
from migrator.postgres import ledger
from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class Applied:
    """The database's revision, and the ledger's entries behind it, oldest first."""

    version: str | None
    entries: tuple[ledger.Entry, ...]

    @property
    def standing(self) -> tuple[ledger.Entry, ...]:
        """The entries of revisions that are applied now: those which no rollback has undone."""
        undone = {entry.undoes for entry in self.entries}
        return tuple(
            entry for entry in self.entries if entry.act == "up" and entry.entry not in undone
        )


def read(conn: Connection, version_table: str) -> Applied:
    """Read both, in one snapshot where the caller's transaction has one; read-only.

    A version table without a ledger is an existing Alembic database: what it names was applied
    without an entry.

    Raises:
        Refused: the version table holds two heads, or it and the ledger disagree.
    """
    applied = Applied(version(conn, version_table), tuple(ledger.entries(conn)))
    _refuse_disagreement(applied, version_table)
    return applied


def version(conn: Connection, version_table: str) -> str | None:
    """The revision that the version table names, None where it is empty or absent; read-only.

    Raises:
        Refused: it names several.
    """
    table = sql.Identifier(version_table)
    found = conn.execute("SELECT to_regclass(%s)", (table.as_string(conn),)).fetchone()
    if found is None or found[0] is None:
        return None
    query = sql.SQL("SELECT version_num FROM {} ORDER BY 1").format(table)
    names = [row[0] for row in conn.execute(query).fetchall()]
    if len(names) > 1:
        raise Refused(
            f"{version_table} names {len(names)} heads: {', '.join(names)}",
            expected="one: migrator applies one chain of revisions",
            next_step="merge the heads with alembic, then run this again",
            heads=names,
        )
    return names[0] if names else None


def move_version(conn: Connection, version_table: str, *, before: str, after: str | None) -> None:
    """Set the version table back from `before` to `after`, inside the caller's transaction.

    Raises:
        Refused: the table does not name `before`.
    """
    table = sql.Identifier(version_table)
    if after is None:
        query = sql.SQL("DELETE FROM {} WHERE version_num = %(before)s").format(table)
    else:
        query = sql.SQL(
            "UPDATE {} SET version_num = %(after)s WHERE version_num = %(before)s"
        ).format(table)
    moved = conn.execute(query, {"before": before, "after": after}).rowcount
    if moved != 1:
        raise Refused(
            f"{version_table} does not name {before}",
            expected=f"{before}, the newest revision in the ledger",
            next_step="look at migrator history: somebody else has changed the database meanwhile",
        )


def _refuse_disagreement(applied: Applied, version_table: str) -> None:
    if not applied.standing or applied.standing[-1].subject == applied.version:
        return
    newest = applied.standing[-1].subject
    raise Refused(
        f"{version_table} names {applied.version or 'no revision'}, "
        f"but the newest revision in the ledger is {newest}",
        expected="the same in both: migrator writes them in one transaction",
        next_step=f"find out who changed {version_table} by hand or by plain alembic "
        f"(migrator history); where the schema is that of {newest}, set version_num back to it",
        version=applied.version,
        ledger=newest,
    )
