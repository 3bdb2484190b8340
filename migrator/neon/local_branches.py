"""Branches on a plain PostgreSQL: copies by CREATE DATABASE ... TEMPLATE on the same server.

PostgreSQL copies a database only while nobody is connected to it. A copy appears under its name at one
instant, complete; until then it is a database `migrator_copy_...`, which the same command drops.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from migrator.errors import Busy, CannotConnect, MigratorError, Refused
from migrator.neon import branches
from migrator.neon.branches import NOTE, Branch, Kept, Kind, Reach, Restored, Wanted
from migrator.postgres.connect import Connection, connect, translated

if TYPE_CHECKING:
    from migrator.settings import Settings

BYTES = 63
SHOWN = 8
# Beyond it the two checkpoints of FILE_COPY cost less than writing every page to the WAL.
LARGE = 64 * 1024 * 1024
RENAME_WITHIN_S = 30.0
# A session that was closed a moment ago, one of migrator's own for one, may still be seen.
LEAVING_S = 1.0
_MADE, _EXPIRES, _TOKEN = NOTE + "created-at", NOTE + "expires-at", NOTE + "token"


class LocalBranches:
    """See `branches.Branches`. A branch's note is the comment on its database."""

    provider: Literal["neon", "postgresql"] = "postgresql"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with connect(settings, "branches", autocommit=True) as conn:
            row = conn.execute("SELECT current_database()").fetchone()
        assert row is not None
        self._own: str = row[0]

    def every(self, kind: Kind) -> list[Branch]:
        with self._server() as conn:
            held = [_branch(*row) for row in conn.execute(_COMMENTED).fetchall()]
        own = [b for b in held if b and b.kind == kind and b.note[NOTE + "database"] == self._own]
        return sorted(own, key=lambda b: b.created_at)

    def create(self, wanted: Wanted) -> Branch:
        name = self._name(wanted.kind, wanted.name)
        with self._server() as conn:
            if (found := _found(conn, name)) is None:
                note = {**(wanted.note or {}), **self._note(wanted)}
                self._copy(conn, self._own, name, note, is_open=wanted.kind == "preview")
                found = _found(conn, name)
        if found is None or found.note[NOTE + "database"] != self._own:
            raise Refused(
                f"there is a database {name}, which is no branch of {self._own}",
                expected="that name to be free",
                next_step="take another name, or rename that database",
            )
        return found

    def reset(self, branch: Branch, expires_at: datetime | None) -> Branch:
        self.delete(branch)
        kept = {k: v for k, v in branch.note.items() if k not in (_MADE, _EXPIRES)}
        return self.create(Wanted(branch.kind, branch.name, expires_at, kept))

    def settings(self, branch: Branch) -> Settings:
        return self._on(branch.id)

    def delete(self, branch: Branch) -> bool:
        with self._server() as conn, _explained(conn, branch.id):
            found = _found(conn, branch.id)
            if found is None:
                return False
            if found.note[NOTE + "database"] != self._own or found.kind != branch.kind:
                raise Refused(f"database {branch.id} is no {branch.kind} of {self._own}")
            conn.execute(_drop(branch.id))
        return True

    def reach(self) -> Reach:
        with self._server() as conn:
            slots = conn.execute(
                "SELECT slot_name::text FROM pg_replication_slots WHERE database = %s ORDER BY 1",
                (self._own,),
            ).fetchall()
            return Reach(
                branch=f"database {self._own}",
                databases=(self._own,),
                slots=tuple(name for (name,) in slots),
                sessions=len(_connected(conn, self._own)),
            )

    def restore(self, branch: Branch, keep_as: str) -> Restored:
        fresh = _temporary(self._own)
        note = {**branches.of("kept", branch.name, self._own), _MADE: _now()}
        note[_TOKEN] = branch.token
        with self._server() as conn:
            self._copy(conn, branch.id, fresh, None, is_open=True)
            _carry(conn, self._own, fresh)
            self._exchange(conn, fresh, keep_as, note)
        return Restored(keep_as, None)

    def kept(self) -> list[Kept]:
        found = []
        with self._server() as conn:
            for database, comment in conn.execute(_COMMENTED).fetchall():
                note = _note(comment)
                if note.get(NOTE + "kind") == "kept" and note.get(NOTE + "database") == self._own:
                    made = datetime.fromisoformat(note[_MADE])
                    found.append(Kept(database, note[_TOKEN], made))
        return sorted(found, key=lambda kept: kept.created_at)

    def kept_name(self, branch: Branch, at: datetime) -> str:
        return _short(f"{self._own}_before_{branch.name}_{at:%Y%m%d%H%M%S}")

    def settled(self) -> str | None:
        return None

    def _exchange(
        self, conn: Connection, fresh: str, keep_as: str, note: Mapping[str, str]
    ) -> None:
        """Both names change in one transaction, once the sessions of others are ended."""
        limit = time.monotonic() + RENAME_WITHIN_S
        with _explained(conn, self._own):
            while True:
                conn.execute(_END_SESSIONS, (self._own,))
                try:
                    with conn.transaction():
                        conn.execute(_rename(self._own, keep_as))
                        conn.execute(_rename(fresh, self._own))
                        conn.execute(_comment(keep_as, json.dumps(dict(note), sort_keys=True)))
                except errors.ObjectInUse:
                    if time.monotonic() >= limit:
                        raise
                else:
                    return

    def _copy(
        self,
        conn: Connection,
        source: str,
        name: str,
        note: Mapping[str, str] | None,
        *,
        is_open: bool,
    ) -> None:
        """Copy under a name of its own, describe it, and then give it its name."""
        draft = _temporary(name + source)
        with _explained(conn, source):
            _refuse_connected(conn, source)
            conn.execute(_drop(draft))
            conn.execute(_create(conn, draft, source))
            if note is not None:
                _carry(conn, source, draft)
                conn.execute(_comment(draft, json.dumps(dict(note), sort_keys=True)))
            if not is_open:
                conn.execute(
                    sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(
                        sql.Identifier(draft)
                    )
                )
            if note is None:
                conn.execute(_drop(name))
            try:
                conn.execute(_rename(draft, name))
            except errors.DuplicateDatabase:
                # Somebody else has made it meanwhile; whose it is, the caller looks at.
                conn.execute(_drop(draft))

    def _note(self, wanted: Wanted) -> dict[str, str]:
        note = branches.of(wanted.kind, wanted.name, self._own)
        note[_MADE] = _now()
        if wanted.expires_at is not None:
            note[_EXPIRES] = wanted.expires_at.isoformat(timespec="seconds")
        return note

    def _name(self, kind: Kind, name: str) -> str:
        return _short(f"{self._own}_{kind}_{name}")

    def _on(self, name: str) -> Settings:
        url = SecretStr(make_conninfo(self._settings.conninfo, dbname=name))
        database = self._settings.database.model_copy(update={"url": url})
        return self._settings.model_copy(update={"database": database})

    @contextmanager
    def _server(self) -> Iterator[Connection]:
        """A session on another database of the server: the one that is copied must have none."""
        with self._elsewhere() as conn:
            yield conn

    def _elsewhere(self) -> Connection:
        failed: CannotConnect | None = None
        for name in ("postgres", "template1"):
            try:
                return connect(self._on(name), "branches", autocommit=True, statement_timeout_ms=0)
            except CannotConnect as exc:
                failed = failed or exc
        assert failed is not None
        raise failed


_LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
)
_COMMENTED = """
SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
WHERE shobj_description(oid, 'pg_database') LIKE '%"migrator/kind"%'
"""
_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()
"""


def _found(conn: Connection, name: str) -> Branch | None:
    """The branch that is the database of that name; None if there is no such database.

    Raises:
        Refused: it is not one of ours.
    """
    row = conn.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
        (name,),
    ).fetchone()
    if row is None:
        return None
    branch = _branch(*row)
    if branch is None:
        raise Refused(
            f"there is a database {name}, and migrator has not made it",
            expected="that name to be free",
            next_step="take another name, or rename that database",
        )
    return branch


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _note(comment: str | None) -> dict[str, str]:
    """What migrator wrote into a database's comment; nothing where it did not."""
    try:
        return {str(k): str(v) for k, v in json.loads(comment or "").items()}
    except (ValueError, AttributeError):
        return {}


def _branch(database: str, comment: str | None) -> Branch | None:
    note = _note(comment)
    try:
        made = datetime.fromisoformat(note[_MADE])
        expires = datetime.fromisoformat(note[_EXPIRES]) if _EXPIRES in note else None
        name, kind = note[NOTE + "name"], note[NOTE + "kind"]
        _ = note[NOTE + "database"]
    except (ValueError, KeyError):
        return None
    if kind not in ("checkpoint", "preview"):
        return None
    return Branch(
        kind="preview" if kind == "preview" else "checkpoint",
        name=name,
        id=database,
        shown=f"database {database}",
        created_at=made,
        expires_at=expires,
        note=note,
    )


def _connected(conn: Connection, database: str) -> list[tuple[Any, ...]]:
    return conn.execute(
        """SELECT pid, coalesce(usename, 'nobody'), coalesce(nullif(application_name, ''), 'no name'),
                  coalesce(client_addr::text, 'this machine')
           FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()
             AND coalesce(backend_type, 'client backend') <> 'autovacuum worker'
           ORDER BY backend_start""",
        (database,),
    ).fetchall()


def _refuse_connected(conn: Connection, database: str) -> None:
    """Ask before CREATE DATABASE does: that waits for 5 s, and holds new sessions off meanwhile."""
    limit = time.monotonic() + LEAVING_S
    while sessions := _connected(conn, database):
        if time.monotonic() >= limit:
            raise _in_use(database, sessions)
        time.sleep(0.02)


def _in_use(database: str, sessions: list[tuple[Any, ...]]) -> Busy:
    lines = [
        f"\n  process {pid} of {user} ({application}) from {where}"
        for pid, user, application, where in sessions[:SHOWN]
    ]
    if len(sessions) > SHOWN:
        lines.append(f"\n  and {len(sessions) - SHOWN} more")
    many = "a session is" if len(sessions) == 1 else f"{len(sessions)} sessions are"
    return Busy(
        f"{many} connected to {database}, and PostgreSQL copies a database only while nobody is:"
        f"{''.join(lines)}",
        expected="no session; migrator ends none for a copy",
        next_step="stop the application and its projectors, then run the same command again; a Neon "
        "branch needs none of this (docs/neon.md)",
        database=database,
        sessions=len(sessions),
    )


@contextmanager
def _explained(conn: Connection, database: str) -> Iterator[None]:
    try:
        yield
    except errors.ObjectInUse as exc:
        raise _in_use(database, _connected(conn, database)) from exc
    except errors.InsufficientPrivilege as exc:
        role = conn.info.user
        raise MigratorError(
            f"role {role} may not do this on the server: {exc.diag.message_primary}",
            expected=f"a role with CREATEDB that owns {database}, or a superuser",
            next_step=f'ALTER ROLE "{role}" CREATEDB, or use a role that may',
            sqlstate=exc.sqlstate,
        ) from exc
    except psycopg.Error as exc:
        raise translated(exc) from exc


def _create(conn: Connection, name: str, source: str) -> sql.Composed:
    row = conn.execute(
        "SELECT r.rolname, pg_database_size(d.oid) FROM pg_database AS d "
        "JOIN pg_roles AS r ON r.oid = d.datdba WHERE datname = %s",
        (source,),
    ).fetchone()
    if row is None:
        raise MigratorError(f"there is no database {source} any more")
    made = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
        sql.Identifier(name), sql.Identifier(source), sql.Identifier(row[0])
    )
    if conn.info.server_version >= 150000 and row[1] > LARGE:
        return sql.SQL("{} STRATEGY file_copy").format(made)
    return made


def _carry(conn: Connection, source: str, target: str) -> None:
    """What belongs to a database and is not copied with it: its settings, its grants, its limit."""
    names = sql.Identifier(target)
    settings = conn.execute(
        "SELECT coalesce(r.rolname, ''), unnest(setconfig) FROM pg_db_role_setting AS s "
        "JOIN pg_database AS d ON d.oid = setdatabase LEFT JOIN pg_roles AS r ON r.oid = setrole "
        "WHERE datname = %s",
        (source,),
    ).fetchall()
    for role, each in settings:
        name, _, value = each.partition("=")
        of_role = sql.SQL("ROLE {} IN ").format(sql.Identifier(role)) if role else sql.SQL("")
        # A list is kept quoted as it is written.
        said = sql.SQL(value) if name in _LISTS else sql.Literal(value)
        with suppress(errors.InsufficientPrivilege):  # one that only a superuser may set
            conn.execute(
                sql.SQL("ALTER {}DATABASE {} SET {} = {}").format(
                    of_role, names, sql.Identifier(*name.split(".")), said
                )
            )
    _carry_grants(conn, source, target)
    row = conn.execute(
        "SELECT datconnlimit FROM pg_database WHERE datname = %s", (source,)
    ).fetchone()
    if row is not None and row[0] >= 0:
        conn.execute(
            sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(names, sql.Literal(row[0]))
        )


def _carry_grants(conn: Connection, source: str, target: str) -> None:
    grants = conn.execute(
        """SELECT coalesce(r.rolname, ''), a.privilege_type, a.is_grantable
           FROM pg_database AS d, aclexplode(d.datacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
           WHERE d.datname = %s""",
        (source,),
    ).fetchall()
    if not grants:
        return
    name = sql.Identifier(target)
    conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    for role, privilege, grantable in grants:
        conn.execute(
            sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                sql.SQL(privilege),
                name,
                sql.Identifier(role) if role else sql.SQL("PUBLIC"),
                sql.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )


def _drop(name: str) -> sql.Composed:
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))


def _rename(name: str, to: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
        sql.Identifier(name), sql.Identifier(to)
    )


def _comment(name: str, text: str) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text))


def _temporary(name: str) -> str:
    return f"migrator_copy_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _short(name: str) -> str:
    """A name that PostgreSQL does not cut off: a long one ends with a hash of all of it."""
    if len(name.encode()) <= BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name.encode()[: BYTES - 11].decode(errors='ignore')}_{digest}"
