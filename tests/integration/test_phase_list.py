"""The list of what breaks a running release, held to a real server.

Each case is a statement of an old release and a change. The statement runs, the change is made, the
statement runs again: what the list calls breaking must make it fail or answer otherwise, and what it
lets pass must not. Everything happens in one database, in transactions that are rolled back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migrator.migrations import phase
from migrator.migrations.hazards import HAZARDS
from migrator.migrations.lint.parse import parse
from tests.phase_cases import ALLOWED, BREAKS, NOTICES, SCHEMA, Case

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def old_release(servers: tuple[str, str]) -> Iterator[tuple[Conn, str]]:
    """A session of the old release, in a database with its schema, and its role."""
    name, role = f"test_{uuid.uuid4().hex}", f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers[0], autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = servers[0].rpartition("/")[0] + f"/{name}"
        with psycopg.connect(url, prepare_threshold=None) as conn:
            conn.execute(SCHEMA.format(role=role).encode())
            conn.commit()
            conn.execute("SET client_min_messages = error")
            conn.commit()
            yield conn, role
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def outcome(conn: Conn, case: Case, role: str) -> Any:
    """What the old release gets: rows, how many it wrote, or an SQLSTATE; undone again."""
    try:
        with conn.transaction(force_rollback=True):
            if case.as_role:
                conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
            cursor = conn.execute(b"EXECUTE old" if case.prepared else case.old.encode())
            return cursor.rowcount, cursor.fetchall() if cursor.description else None
    except psycopg.Error as exc:
        return exc.sqlstate


def before_and_after(old_release: tuple[Conn, str], case: Case) -> tuple[Any, Any]:
    conn, role = old_release
    with conn.transaction(force_rollback=True):
        if case.setup:
            conn.execute(case.setup.replace("{role}", role).encode())
        if case.prepared:
            conn.execute(f"PREPARE old AS {case.old}".encode())
        try:
            before = outcome(conn, case, role)
            conn.execute(case.change.replace("{role}", role).encode())
            return before, outcome(conn, case, role)
        finally:
            if case.prepared:
                conn.execute("DEALLOCATE old")


def hazards(case: Case) -> set[str]:
    script = parse(case.change.replace("{role}", "shop"), phase="expand")
    return {found.hazard.id for found in phase.found(script)}


@pytest.mark.parametrize("case", BREAKS, ids=str)
def test_what_the_list_refuses_breaks_the_old_release(old_release, case):
    before, after = before_and_after(old_release, case)
    assert case.hazard in hazards(case)
    assert HAZARDS[case.hazard].breaks
    assert (before == case.before) if case.before else not isinstance(before, str)
    assert (after == case.after) if case.after else after != before


@pytest.mark.parametrize("case", NOTICES, ids=str)
def test_what_the_list_notes_can_change_what_the_old_release_meets(old_release, case):
    before, after = before_and_after(old_release, case)
    assert case.hazard in hazards(case)
    assert not any(HAZARDS[name].breaks for name in hazards(case))
    assert (before == case.before) if case.before else not isinstance(before, str)
    assert (after == case.after) if case.after else after != before


@pytest.mark.parametrize("case", ALLOWED, ids=str)
def test_what_the_list_lets_pass_leaves_the_old_release_alone(old_release, case):
    before, after = before_and_after(old_release, case)
    assert not any(HAZARDS[name].breaks for name in hazards(case))
    assert after == before
    assert case.before == (before if isinstance(before, str) else None)


def test_a_locked_table_keeps_the_old_release_waiting(old_release):
    conn, _ = old_release
    with conn.transaction(force_rollback=True):
        conn.execute("LOCK TABLE plain")
        with (
            psycopg.connect(conn.info.dsn, options="-c lock_timeout=1ms") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("SELECT a FROM plain")


def test_every_entry_of_the_list_has_its_statement():
    tested = {case.hazard for case in (*BREAKS, *NOTICES)} | {"lock-table"}
    assert tested == set(HAZARDS)
