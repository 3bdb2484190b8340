"""Ledgers that earlier releases have made: every layout that was ever in ledger.sql."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql

from migrator.errors import Refused
from migrator.migrations import up, verify
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.ledger import NewEntry
from migrator.settings import load
from tests import revisions
from tests.integration.test_ledger import documented  # noqa: F401 - a fixture

LAYOUTS = sorted((Path(__file__).parent / "ledgers").glob("*.sql"))
FIRST = LAYOUTS[0]

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity
FROM information_schema.columns WHERE table_schema = 'migrator' ORDER BY 1, 2
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'migrator'::regnamespace ORDER BY 1, 2
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'migrator' ORDER BY 1"


def shape(db):
    return [db.execute(query).fetchall() for query in (COLUMNS, CONSTRAINTS, INDEXES)]


@pytest.fixture
def settings(tmp_path, make_settings):
    revisions.tables(tmp_path, 2)
    return make_settings(tmp_path)


def applied_under(db, layout: Path) -> None:
    """What the release of that layout left: its tables, revision 0001, and the entry for it."""
    db.execute(layout.read_text())
    db.execute(
        """CREATE TABLE t1 (a int);
           CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc
                                         PRIMARY KEY);
           INSERT INTO alembic_version VALUES ('0001')"""
    )
    script = "DROP TABLE t1;"
    new = NewEntry(
        act="up",
        subject="0001",
        run=uuid4(),
        duration_ms=7,
        phase="expand",
        rollback_script=script,
        rollback_hash=hashlib.sha256(script.encode()).hexdigest(),
    )
    link = ledger.chain("", new, without=ledger.ADDED if layout == FIRST else ())
    db.execute(
        """INSERT INTO migrator.ledger
             (act, subject, run, duration_ms, phase, rollback_script, rollback_hash, client,
              previous_hash, entry_hash)
           VALUES ('up', '0001', %s, 7, 'expand', %s, %s, 'me@here', '', %s)""",
        (new.run, script, new.rollback_hash, link),
    )


@pytest.fixture(params=LAYOUTS, ids=lambda path: path.stem)
def old(request, db, settings):
    applied_under(db, request.param)
    return settings


def test_reading_works_and_changes_nothing(old, db, cli):
    before = shape(db)
    status = json.loads(cli("--json", "status").stdout)
    assert status["revisions"]["pending"] == ["0002"]
    assert "0001" in cli("history").stdout
    assert cli("up", "--dry-run").exit_code == 0
    assert "DROP TABLE t1;" in cli("rollback", "--dry-run").stdout
    assert [f.found for f in verify.verify(old, with_drift=False).findings] == []
    assert shape(db) == before


def test_up_gives_it_the_layout_of_a_new_one(old, db):
    assert up.up(old).version == "0002"
    upgraded = shape(db)
    db.execute("DROP SCHEMA migrator CASCADE")
    with connect(old, "test") as conn:
        ledger.ensure(conn)
    assert upgraded == shape(db)


def test_every_entry_stays_as_it_is_and_the_chain_holds(old, db, documented):  # noqa: F811
    (before,) = db.execute("SELECT entry_hash FROM migrator.ledger").fetchone()
    up.up(old)
    with connect(old, "test") as conn:
        first, second = ledger.entries(conn)
        assert ledger.broken_links([first, second]) == []
    assert (first.entry_hash, second.previous_hash) == (before, before)
    assert documented().stdout.startswith("the chain holds")


@pytest.mark.parametrize("change", ["phase = 'contract'", "retries = 1"])
def test_an_old_entry_that_was_edited_is_still_found(db, settings, change):
    applied_under(db, FIRST)
    up.up(settings)
    db.execute(f"UPDATE migrator.ledger SET {change} WHERE entry = 1")
    with connect(settings, "test") as conn:
        (broken,) = ledger.broken_links(ledger.entries(conn))
    assert (broken.entry.subject, broken.is_edited) == ("0001", True)


def test_the_older_release_can_go_on_writing(db, settings):
    applied_under(db, FIRST)
    up.up(settings)
    db.execute(
        """INSERT INTO migrator.deployer (lock, epoch, holder) VALUES ('x', 1, 'me');
           INSERT INTO migrator.ledger (act, subject, run, duration_ms, client, previous_hash,
               entry_hash) VALUES ('up', '0003', gen_random_uuid(), 1, 'me', '', 'x')"""
    )


def test_export_asks_for_the_layout_that_its_scripts_write(db, settings, cli, tmp_path):
    applied_under(db, FIRST)
    result = cli("rollback", "--export", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert "an older layout, which lacks ledger.sql_hash" in result.stderr
    assert "run migrator up once" in result.stderr


def test_a_role_that_may_not_alter_it_is_refused_with_what_is_lacking(db, settings, role):
    applied_under(db, FIRST)
    db.execute(
        sql.SQL(
            "GRANT USAGE, CREATE ON SCHEMA migrator, public TO {0}; "
            "GRANT ALL ON ALL TABLES IN SCHEMA migrator, public TO {0}"
        ).format(sql.Identifier(role))
    )
    url = settings.database.url.get_secret_value().replace("postgres@", f"{role}@")
    with pytest.raises(Refused, match="which lacks ledger") as refused:
        up.up(load(overrides={"database": {"url": url}}))
    assert "ledger.sql_hash" in refused.value.found
    assert f"role {role} may not change it" in refused.value.found
    assert "owns the ledger" in refused.value.next_step


def test_a_ledger_that_lost_a_column_of_every_layout_is_called_damaged(db, settings, cli):
    applied_under(db, FIRST)
    db.execute("ALTER TABLE migrator.ledger DROP COLUMN client")
    for command in ("status", "up", "history"):
        result = cli(command)
        assert result.exit_code == 3, result.output
        assert "the ledger is damaged: migrator.ledger has no column client" in result.stderr
