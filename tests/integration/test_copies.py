"""Copies for a rehearsal, by PostgreSQL and as branches of a fake Neon: one suite for both."""

from __future__ import annotations

import psycopg
import pytest

from migrator.deploy import copies, rehearse
from migrator.errors import UsageError
from migrator.migrations.lint.locks import Mode
from migrator.migrations.up import up
from migrator.postgres import rehearsal
from migrator.settings import load
from tests import revisions


@pytest.fixture(params=["neon", "postgresql"])
def settings(request, tmp_path, database_url, monkeypatch):
    """A project with one revision applied, on either; nobody is connected."""
    if request.param == "neon":
        request.getfixturevalue("neon")
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    revisions.write(tmp_path, "0001", 'op.execute("CREATE TABLE orders (id int)")')
    up(load())
    with psycopg.connect(database_url) as conn:
        conn.execute("INSERT INTO orders VALUES (7)")
    return load()


def nothing(_text):
    return None


def swept(maker, copy):
    """Whether a sweep drops this very copy; tests beside this one have theirs."""
    return any(copy.name in each for each in maker.sweep())


def test_a_copy_holds_the_rows_and_what_is_written_to_it_stays_there(settings, database_url):
    with (
        copies.opened(settings, None, keep=False) as maker,
        copies.made(maker, keep=False, say=nothing) as copy,
        psycopg.connect(copy.settings.conninfo) as conn,
    ):
        assert conn.execute("SELECT id FROM orders").fetchall() == [(7,)]
        conn.execute("DELETE FROM orders")
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT id FROM orders").fetchall() == [(7,)]
    with copies.opened(settings, None, keep=False) as maker:
        assert not swept(maker, copy)


def test_what_a_run_that_is_gone_has_left_is_swept_and_what_goes_on_is_not(settings):
    with copies.opened(settings, None, keep=False) as maker:
        made = maker.make(nothing)
        with copies.opened(settings, None, keep=False) as another:
            assert not swept(another, made)
            maker._let_go()  # as where its process dies
            assert swept(another, made)
            assert not swept(another, made)
        maker.drop(made)


def test_one_that_is_kept_is_not_swept(settings):
    with copies.opened(settings, None, keep=True) as maker:
        with copies.made(maker, keep=True, say=nothing) as copy:
            pass
        assert copy.to_drop
        with copies.opened(settings, None, keep=False) as another:
            assert not swept(another, copy)
        maker.drop(copy)


def test_a_branch_without_neon_is_refused(make_settings, tmp_path):
    with (
        pytest.raises(UsageError, match="project_id is not set"),
        copies.opened(make_settings(tmp_path), "branch", keep=False),
    ):
        pass


def test_a_deployment_is_rehearsed_on_it(settings, tmp_path, database_url):
    revisions.write(
        tmp_path,
        "0002",
        'op.execute("ALTER TABLE orders ADD COLUMN note text")',
        revises="0001",
        rollback="ALTER TABLE orders DROP COLUMN note;",
    )
    with copies.opened(settings, None, keep=False) as maker:
        done = rehearse.rehearse(settings, maker)
        assert not swept(maker, done.copy)
    assert [(each.proof, each.up.measured.strongest) for each in done.revisions] == [
        ("proven", Mode.ACCESS_EXCLUSIVE)
    ]
    with psycopg.connect(database_url) as conn:
        assert rehearsal.latest(conn, done.plan.hash).outcome == "passed"
