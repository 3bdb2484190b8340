"""The histories of two real products, from empty to head: what plain Alembic makes, migrator makes."""

from __future__ import annotations

import signal
import time
import uuid

import psycopg
import pytest
from psycopg import sql

from migrator.postgres import ledger
from tests import chains

FREEZE = """
    CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
    CREATE TRIGGER hold_here BEFORE INSERT ON migrator.ledger
    FOR EACH ROW WHEN (NEW.entry = {entry}) EXECUTE FUNCTION hold_here()
"""


@pytest.fixture
def other_database(servers):
    """A second empty database, for plain Alembic."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(servers[0], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield servers[0].rpartition("/")[0] + f"/{name}"
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def await_(condition, what: str, *, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


def frozen(db) -> bool:
    found = db.execute(
        """SELECT count(*) FROM pg_stat_activity
           WHERE wait_event = 'PgSleep' AND datname = current_database()"""
    )
    return found.fetchone()[0] > 0


def subjects(db) -> list[str]:
    return [name for (name,) in db.execute("SELECT subject FROM migrator.ledger ORDER BY entry")]


@pytest.mark.parametrize("chain", [chains.PREFECT, chains.PHOENIX], ids=lambda chain: chain.wheel)
def test_a_real_history_ends_in_the_schema_that_plain_alembic_makes(
    tmp_path, database_url, other_database, db, chain
):
    project = chains.project(chain, tmp_path)
    plain = project.run(other_database, "alembic", "upgrade", "head")
    project.finish(database_url, "migrator", "up")
    with plain:
        said, _ = plain.communicate(timeout=300)
    assert plain.returncode == 0, said[-3000:]
    assert chains.schema(database_url) == chains.schema(other_database)
    assert len(subjects(db)) == len(set(subjects(db)))
    assert subjects(db)[-1] == chains.OWN
    assert "nothing pending" in project.finish(database_url, "migrator", "up")


def test_a_real_history_killed_on_its_way_goes_on_to_the_same_schema(
    tmp_path, database_url, other_database, db
):
    project = chains.project(chains.PHOENIX, tmp_path)
    ledger.ensure(db)
    db.execute(FREEZE.format(entry=12))
    with project.run(database_url, "migrator", "up") as running:
        await_(lambda: frozen(db), "the twelfth entry")
        running.send_signal(signal.SIGKILL)
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION hold_here() CASCADE")
    assert len(subjects(db)) == 11
    project.finish(database_url, "migrator", "up")
    project.finish(other_database, "alembic", "upgrade", "head")
    assert chains.schema(database_url) == chains.schema(other_database)
    assert len(subjects(db)) == len(set(subjects(db)))
