"""Copies on the same PostgreSQL server: by CREATE DATABASE ... TEMPLATE, or from pg_dump."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from migrator.deploy.copies import Copy
from migrator.errors import Busy, CannotConnect, MigratorError
from migrator.migrations.scratch import version_tables
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect, translated
from migrator.sandbox import client_program
from migrator.settings import Settings

By = Literal["template", "dump", "schema"]
PREFIX = "migrator_rehearsal_"
NAMED = rf"^{PREFIX}[0-9]+_[0-9a-f]{{8}}$"
KEPT = "kept by migrator rehearse: "
MADE = "made by migrator rehearse, which drops it: "
SHOWN = 8
JUST_CLOSED_S = 2.0
_FROM_THE_SERVER = ("postgres", "template1")
_NO_ROWS = (
    "how long anything takes, what it writes, whether rows fit: the copy has a schema and no rows",
)


@dataclass
class LocalCopies:
    """Makes copies of the settings' database beside it. An advisory lock says that a run goes on."""

    settings: Settings
    by: By
    _held: Connection | None = field(default=None, init=False)

    def sweep(self) -> list[str]:
        """Drop copies whose lock nobody holds: who made them is gone."""
        with self._server() as conn:
            stale = _stale(conn)
            for name in stale:
                conn.execute(_drop(name))
            return stale

    def make(self, say: Callable[[str], None]) -> Copy:
        """Copy the database, or its schema alone."""
        source = self._source
        name = f"{PREFIX}{int(time.time())}_{secrets.token_hex(4)}"
        self._held = conn = self._opened()
        try:
            _lock(conn, name)
            self._create(conn, name, source, say)
        except BaseException:
            self._give_up(name)
            raise
        words = {
            "template": f"by CREATE DATABASE ... TEMPLATE from {source}",
            "dump": f"from pg_dump of {source}",
            "schema": f"from the schema of {source}, without its rows",
        }
        return Copy(
            name=name,
            settings=self._on(name),
            how=f"database {name}, {words[self.by]}",
            shares_server=True,
            to_drop=f'DROP DATABASE "{name}"',
            has_rows=self.by != "schema",
            cannot_tell=_NO_ROWS if self.by == "schema" else (),
        )

    def drop(self, copy: Copy) -> None:
        """Drop the database with all who are connected to it."""
        try:
            self._by_any_session(_drop(copy.name))
        except psycopg.Error as exc:
            raise translated(exc) from exc
        finally:
            self._let_go()

    def keep(self, copy: Copy) -> None:
        """Say in the database's comment that it is kept."""
        self._by_any_session(_comment(copy.name, f"{KEPT}{copy.how}"))
        self._let_go()

    def _create(self, conn: Connection, name: str, source: str, say: Callable[[str], None]) -> None:
        with _explained(source, conn, self.by):
            if self.by == "template":
                _refuse_connected(conn, source)
                say(f"copying {source} to {name}; new sessions of {source} wait meanwhile")
                conn.execute(_create_from(name, source))
            else:
                say(f"copying {source} to {name} by pg_dump")
                conn.execute(_create_empty(conn, name, source))
            conn.execute(_comment(name, f"{MADE}a copy of {source}"))
        self._carry_settings(source, name)
        if self.by != "template":
            self._restore(name)

    def _restore(self, name: str) -> None:
        """Pour pg_dump into the copy; for a schema alone, with migrator's own rows."""
        if self.by == "dump":
            self._pour(name)
            return
        self._pour(name, "--schema-only")
        with connect(self.settings, "rehearse", autocommit=True) as conn:
            own = [f"--table={table}" for table in version_tables(conn, self.settings)]
            own += ["--schema=migrator"] if ledger.exists(conn) else []
        # One by one: beside --table, pg_dump passes over --schema.
        for each in own:
            self._pour(name, "--data-only", each)

    def _pour(self, name: str, *options: str) -> None:
        """Let pg_dump write into psql.

        Raises:
            MigratorError: either fails; the last words of both are in the message.
        """
        dump = [str(client_program("pg_dump")), "--no-publications", "--no-subscriptions", *options]
        load = [str(client_program("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
        load += ["--single-transaction", "--output=/dev/null"]
        source, source_env = _apart(self.settings.conninfo)
        target, target_env = _apart(self._on(name).conninfo)
        with (
            subprocess.Popen(
                [*dump, f"--dbname={source}"],
                env=source_env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as reader,
            subprocess.Popen(
                [*load, f"--dbname={target}"],
                env=target_env,
                stdin=reader.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as writer,
        ):
            try:
                assert reader.stdout is not None
                reader.stdout.close()
                _, said_by_writer = writer.communicate()
                _, said_by_reader = reader.communicate()
            except BaseException:
                reader.kill()
                writer.kill()
                raise
        for program, done, said in (
            ("psql", writer, said_by_writer),
            ("pg_dump", reader, said_by_reader),
        ):
            if done.returncode != 0:
                last = said.decode(errors="replace").strip().splitlines()[-SHOWN:]
                raise MigratorError(
                    f"the copy could not be made: {program} failed:\n  " + "\n  ".join(last),
                    expected="pg_dump and psql of the server's version or a newer one, as a role that "
                    "may read everything and own what it makes",
                    next_step="migrator rehearse with a role that may, or --copy template while "
                    "nobody is connected",
                )

    def _carry_settings(self, source: str, name: str) -> None:
        """ALTER DATABASE ... SET is not copied with a database, and revisions may depend on it."""
        query = """SELECT unnest(setconfig) FROM pg_db_role_setting s
                   JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s AND setrole = 0"""
        with self._server() as conn:
            for (each,) in conn.execute(query, (source,)).fetchall():
                parameter, _, value = each.partition("=")
                with suppress(psycopg.Error):  # one that only a superuser may set
                    conn.execute("SELECT set_config(%s, %s, false)", (parameter, value))
                    conn.execute(
                        sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(
                            sql.Identifier(name), sql.Identifier(*parameter.split("."))
                        )
                    )

    @cached_property
    def _source(self) -> str:
        with connect(self.settings, "rehearse", autocommit=True) as conn:
            row = conn.execute("SELECT current_database()").fetchone()
            assert row is not None
            name: str = row[0]
            return name

    def _on(self, name: str) -> Settings:
        url = SecretStr(make_conninfo(self.settings.conninfo, dbname=name))
        database = self.settings.database.model_copy(update={"url": url})
        return self.settings.model_copy(update={"database": database})

    def _opened(self) -> Connection:
        """A session on another database of the server: the source must have none."""
        failed: CannotConnect | None = None
        for name in (each for each in _FROM_THE_SERVER if each != self._source):
            try:
                conn = connect(self._on(name), "rehearse", autocommit=True, statement_timeout_ms=0)
            except CannotConnect as exc:
                failed = failed or exc
                continue
            with suppress(errors.UndefinedObject):  # PostgreSQL 13
                conn.execute("SET idle_session_timeout = 0")
            return conn
        assert failed is not None
        raise failed

    @contextmanager
    def _server(self) -> Iterator[Connection]:
        with self._opened() as conn:
            yield conn

    def _give_up(self, name: str) -> None:
        with suppress(psycopg.Error, MigratorError):
            self._by_any_session(_drop(name))
        self._let_go()

    def _by_any_session(self, statement: sql.Composed) -> None:
        """By the one that is open, since a full server has no other; else by a new one."""
        if self._held is not None:
            with suppress(psycopg.OperationalError):
                self._held.execute(statement)
                return
        with self._server() as conn:
            conn.execute(statement)

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _apart(conninfo: str) -> tuple[str, dict[str, str]]:
    """The conninfo without its password, and an environment that has it: arguments can be seen."""
    parts = conninfo_to_dict(conninfo)
    password = parts.pop("password", None)
    environment = {**os.environ, "PGAPPNAME": "migrator rehearse"}
    if password:
        environment["PGPASSWORD"] = str(password)
    return make_conninfo("", **parts), environment


def _lock(conn: Connection, name: str) -> None:
    """Hold the copy's lock as long as the session lasts; pg_locks shows it in every database."""
    conn.execute(
        "SELECT pg_advisory_lock(hashtextextended('migrator:rehearsal:' || %s, 0))", (name,)
    )


def _stale(conn: Connection) -> list[str]:
    rows = conn.execute(
        """SELECT datname FROM pg_database
           WHERE datname ~ %s AND pg_has_role(datdba, 'USAGE')
             AND NOT starts_with(coalesce(shobj_description(oid, 'pg_database'), ''), %s)
             AND NOT EXISTS (
                 SELECT FROM pg_locks
                 WHERE locktype = 'advisory' AND objsubid = 1
                   AND (classid::bigint << 32 | objid::bigint)
                       = hashtextextended('migrator:rehearsal:' || datname, 0))
           ORDER BY 1""",
        (NAMED, KEPT),
    ).fetchall()
    return [name for (name,) in rows]


def _drop(name: str) -> sql.Composed:
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))


def _comment(name: str, text: str) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text))


def _create_from(name: str, source: str) -> sql.Composed:
    return sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(source)
    )


def _create_empty(conn: Connection, name: str, source: str) -> sql.Composed:
    row = conn.execute(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = %s",
        (source,),
    ).fetchone()
    assert row is not None
    return sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    ).format(sql.Identifier(name), *(sql.Literal(value) for value in row))


def _refuse_connected(conn: Connection, source: str) -> None:
    """Ask before CREATE DATABASE does: it waits for 5 s, and holds new sessions off meanwhile.

    A session that was closed a moment ago, one of ours it may be, is waited for.
    """
    limit = time.monotonic() + JUST_CLOSED_S
    while (rows := _connected_to(conn, source)) and time.monotonic() < limit:
        time.sleep(0.05)
    if not rows:
        return
    lines = [
        f"\n  process {pid} of {user} ({name}) from {where}, {state}"
        for pid, user, name, where, state in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        lines.append(f"\n  and {len(rows) - SHOWN} more")
    raise _connected(source, "".join(lines), len(rows))


def _connected_to(conn: Connection, source: str) -> list[tuple[Any, ...]]:
    return conn.execute(
        """SELECT pid, usename, coalesce(nullif(application_name, ''), 'no name'),
                  coalesce(client_addr::text, 'this machine'), coalesce(state, 'state hidden')
           FROM pg_stat_activity
           WHERE datname = %s AND coalesce(backend_type, 'client backend') <> 'autovacuum worker'
           ORDER BY backend_start""",
        (source,),
    ).fetchall()


def _connected(source: str, who: str, sessions: int) -> Busy:
    many = "a session is" if sessions == 1 else f"{sessions} sessions are"
    return Busy(
        f"{many} connected to {source}, and PostgreSQL copies a database only while nobody is:{who}",
        expected="no session; or another way to copy",
        next_step="migrator rehearse --copy dump, which reads beside them; or --copy schema, which "
        "takes no rows; or let it run against a restored backup (docs/rehearse.md)",
        database=source,
        sessions=sessions,
    )


@contextmanager
def _explained(source: str, conn: Connection, by: By) -> Iterator[None]:
    """Say what it means that a copy cannot be made."""
    try:
        yield
    except errors.ObjectInUse as exc:
        raise _connected(source, f"\n  {exc.diag.message_detail or exc}", 1) from exc
    except errors.InsufficientPrivilege as exc:
        role = conn.info.user
        owner = f", and to own {source} or be a superuser" if by == "template" else ""
        raise MigratorError(
            f"role {role} may not make the copy: {exc.diag.message_primary}",
            expected=f"a role with CREATEDB{owner}",
            next_step=f'ALTER ROLE "{role}" CREATEDB, or run migrator rehearse as a role that may',
            sqlstate=exc.sqlstate,
        ) from exc
    except psycopg.Error as exc:
        raise translated(exc) from exc
