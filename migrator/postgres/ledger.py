"""The ledger: what was done to this database, each entry chained to the one before.

It lives in schema `migrator` of the database it speaks of, so that a checkout of any age, or psql
alone, can read it. docs/ledger.md describes the format.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from functools import cache
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from migrator.errors import MigratorError, Refused
from migrator.postgres import layout
from migrator.postgres.connect import Connection
from migrator.postgres.together import Ask, Cursor, together

FORMAT = 1
Act = Literal["up", "baseline", "rollback", "repair", "cut-over", "swap-back"]


@dataclass(frozen=True, kw_only=True)
class NewEntry:
    """What a command says it did; the ledger adds when, who and the chain."""

    act: Act
    subject: str
    run: UUID
    duration_ms: int
    message: str | None = None
    phase: str | None = None
    revises: str | None = None
    source_hash: str | None = None
    sql_hash: str | None = None
    rollback_script: str | None = None
    rollback_hash: str | None = None
    irreversible: str | None = None
    build: int | None = None
    replaced_build: int | None = None
    undoes: int | None = None
    reason: str | None = None
    allowed: list[str] | None = None
    retries: int | None = None
    lock_wait_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry(NewEntry):
    """One row of migrator.ledger."""

    entry: int
    applied_at: datetime
    role: str
    client: str
    git_sha: str | None
    previous_hash: str
    entry_hash: str

    @property
    def parents(self) -> tuple[str, ...]:
        """The revisions that it revises: one, none for the first, several for a merge."""
        return tuple(self.revises.split(", ")) if self.revises else ()


def ensure(conn: Connection) -> None:
    """Create schema `migrator` where it is absent, and complete it where its layout is an older one.

    Idempotent, safe beside another starter; entries stay as they are.

    Raises:
        Refused: the ledger is of a newer format than this migrator knows, or the role may not
            complete it.
    """
    with conn.transaction():
        if not layout.lacking(_held(conn)):
            return
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('migrator:ledger', 0))")
        held = _held(conn)
        if layout.lacking(held):
            layout.complete(conn, held)


def exists(conn: Connection) -> bool:
    """Whether this database has a ledger, of this layout or an older one; read-only.

    Raises:
        Refused: it is of a newer format than this migrator knows.
    """
    return "format" in _held(conn)


def refuse_older(conn: Connection) -> None:
    """Refuse a ledger that lacks what this migrator writes; read-only.

    Raises:
        Refused: it is of an older layout, or of a newer format.
    """
    held = _held(conn)
    if "format" in held and (lacking := layout.lacking(held)):
        raise Refused(
            f"the ledger is of an older layout, which lacks {', '.join(lacking)}",
            expected="the layout that this migrator writes",
            next_step="run migrator up once: it adds what is lacking",
        )


def _held(conn: Connection) -> layout.Columns:
    held = layout.present(conn)
    if "format" not in held:
        return held
    version = conn.execute("SELECT max(version) FROM migrator.format").fetchone()
    if version is not None and (version[0] or 0) > FORMAT:
        raise Refused(
            f"the ledger is of format {version[0]}",
            expected=f"format {FORMAT}, the newest that this migrator knows",
            next_step="use the migrator that the newer release deploys with",
        )
    return held


def append(conn: Connection, new: NewEntry) -> int:
    """Write one entry inside the caller's transaction, chained to the last; returns its number."""
    *_, number = together(conn, *appending(new))
    entry: int = number
    return entry


def appending(new: NewEntry) -> tuple[Ask, Ask]:
    """What `append` asks of the server; the second one reads the entry's number."""
    row = vars(new) | {"client": client(), "git_sha": git_sha(), "said": said(new)}
    return _ONE_BY_ONE, Ask(_INSERT, row, _number)


def _number(cursor: Cursor) -> int:
    found = cursor.fetchone()
    if found is None:
        raise MigratorError("the ledger took no entry")
    number: int = found[0]
    return number


# Two commands under different locks may finish at once; the chain needs them one by one.
_ONE_BY_ONE = Ask(b"LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE")
_COLUMNS = [f.name for f in fields(NewEntry)] + ["client", "git_sha"]
# The hash is what `chain` says; the server knows the entry before, and saves a question for it.
_INSERT = (
    f"INSERT INTO migrator.ledger ({', '.join(_COLUMNS)}, previous_hash, entry_hash) "  # noqa: S608
    f"SELECT {', '.join(f'%({name})s' for name in _COLUMNS)}, previous, "
    "encode(sha256(convert_to(previous || chr(10) || %(said)s, 'UTF8')), 'hex') "
    "FROM (SELECT coalesce((SELECT entry_hash FROM migrator.ledger ORDER BY entry DESC LIMIT 1), '')"
    ") AS last (previous) RETURNING entry"
).encode()


def entries(conn: Connection) -> list[Entry]:
    """Every entry, oldest first; an empty list where there is no ledger. Read-only.

    What an older layout has no column for is None.

    Raises:
        Refused: the ledger is of a newer format, or lacks what every layout has.
    """
    held = _held(conn)
    if "format" not in held:
        return []
    there = held.get("ledger", frozenset())
    if lost := [f.name for f in fields(Entry) if f.default is MISSING and f.name not in there]:
        raise Refused(
            f"the ledger is damaged: migrator.ledger has no column {', '.join(lost)}",
            expected="the columns that docs/ledger.md describes",
            next_step="restore schema migrator from a backup; somebody has changed it by hand",
        )
    columns = ", ".join(f.name for f in fields(Entry) if f.name in there)
    query = f"SELECT {columns} FROM migrator.ledger ORDER BY entry"  # noqa: S608 - our own names
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(query.encode()).fetchall()


def chain(previous: str, new: NewEntry, *, without: Iterable[str] = ()) -> str:
    """The hash of an entry: of the one before it and of everything the entry says."""
    return hashlib.sha256(f"{previous}\n{said(new, without=without)}".encode()).hexdigest()


# The columns that the first layout had not: an entry written under it says nothing of them.
ADDED = ("allowed", "lock_wait_ms", "retries", "sql_hash")


def _is_edited(entry: Entry) -> bool:
    hashes = {chain(entry.previous_hash, entry)}
    if all(getattr(entry, name) is None for name in ADDED):
        hashes.add(chain(entry.previous_hash, entry, without=ADDED))
    return entry.entry_hash not in hashes


def said(new: NewEntry, *, without: Iterable[str] = ()) -> str:
    """What an entry says, as the JSON text that its hash is made of."""
    names = {f.name for f in fields(NewEntry)}.difference(without)
    columns = {name: getattr(new, name) for name in names}
    return json.dumps(columns, sort_keys=True, default=str, ensure_ascii=True)


@dataclass(frozen=True)
class BrokenLink:
    """An entry whose link of the chain does not hold: itself, or what stands before it."""

    entry: Entry
    is_edited: bool
    follows_another: bool


def broken_links(chained: Iterable[Entry]) -> list[BrokenLink]:
    """Check every link, oldest first; an entry is named once, and those after it are not. Pure."""
    broken = []
    previous = ""
    for entry in chained:
        is_edited = _is_edited(entry)
        follows_another = entry.previous_hash != previous
        if is_edited or follows_another:
            broken.append(BrokenLink(entry, is_edited, follows_another))
        previous = entry.entry_hash
    return broken


@cache
def client() -> str:
    """Who runs this, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def git_sha() -> str | None:
    """The commit that is deployed: the pipeline's word for it, else the checkout's."""
    return os.environ.get("GITHUB_SHA") or _checkout_sha(os.getcwd())  # noqa: PTH109 - for each entry


@cache
def _checkout_sha(folder: str) -> str | None:
    # Asked once per command, not once per revision.
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
