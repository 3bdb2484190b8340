from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from migrator.errors import Refused
from migrator.migrations import undo, up
from migrator.migrations.normalise import sql_hash
from migrator.migrations.retry import Retry
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.ledger import NewEntry
from migrator.postgres.locks import deployer_lock
from tests import revisions

DOCS = Path(__file__).parents[2] / "docs/ledger.md"


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


@pytest.fixture
def conn(settings):
    with connect(settings, "test", autocommit=True) as conn:
        ledger.ensure(conn)
        yield conn


def new(subject="0001", **more) -> NewEntry:
    return NewEntry(**{"act": "up", "subject": subject, "run": uuid4(), "duration_ms": 7, **more})


def test_an_entry_is_read_as_it_was_written(conn):
    written = new(message="Grüße", phase="expand", revises="0000", rollback_script="SELECT 1;")
    with conn.transaction():
        number = ledger.append(conn, written)
    (entry,) = ledger.entries(conn)
    assert entry.entry == number
    for field in fields(NewEntry):
        assert getattr(entry, field.name) == getattr(written, field.name)
    assert entry.role == "postgres"
    assert entry.client == ledger.client()
    assert entry.applied_at.tzinfo is not None


@pytest.fixture
def documented(database_url):
    """The program in docs/ledger.md that verifies a chain."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, database_url],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_documented_program_verifies_the_chain(conn, documented):
    for number in range(3):
        with conn.transaction():
            ledger.append(
                conn, new(f"{number:04}", message="ü \U0001f680", rollback_script="a\n'b")
            )
    assert documented().stdout.startswith("the chain holds; its last link is ")


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE migrator.ledger SET reason = 'x' WHERE entry = 2",
        "DELETE FROM migrator.ledger WHERE entry = 2",
        "UPDATE migrator.ledger SET entry_hash = 'x' WHERE entry = 1",
    ],
)
def test_the_documented_program_finds_a_tampered_entry(conn, documented, tampering):
    for number in range(3):
        with conn.transaction():
            ledger.append(conn, new(f"{number:04}"))
    conn.execute(tampering)
    assert "is tampered" in documented().stderr


def test_every_column_is_documented(conn):
    columns = conn.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'migrator'"
    )
    page = DOCS.read_text()
    assert {name for (name,) in columns if f"`{name}`" not in page} == {"version"}


def test_ensure_can_be_repeated_and_leaves_no_transaction_open(conn, settings):
    with connect(settings, "test") as other:
        ledger.ensure(other)
        assert other.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_two_starters_at_once_make_one_ledger(settings):
    failures = []
    barrier = threading.Barrier(4)

    def start():
        with connect(settings, "test") as conn:
            barrier.wait()
            try:
                ledger.ensure(conn)
            except Exception as exc:  # noqa: BLE001 - reported below
                failures.append(exc)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_ledger_of_a_newer_format_is_refused(conn, settings):
    conn.execute("INSERT INTO migrator.format VALUES (2)")
    with pytest.raises(Refused, match="the ledger is of format 2"):
        ledger.entries(conn)


def test_a_rollback_without_a_reason_is_refused_by_the_table(conn):
    with conn.transaction():
        number = ledger.append(conn, new())
    with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
        ledger.append(conn, new(act="rollback", undoes=number, reason=""))


def test_an_entry_is_undone_at_most_once(conn):
    with conn.transaction():
        number = ledger.append(conn, new())
        ledger.append(conn, new(act="rollback", undoes=number, reason="why"))
    with pytest.raises(psycopg.errors.UniqueViolation), conn.transaction():
        ledger.append(conn, new(act="rollback", undoes=number, reason="why"))


def test_the_pipelines_commit_is_recorded(conn, monkeypatch):
    monkeypatch.setenv("GITHUB_SHA", "f00d")
    with conn.transaction():
        ledger.append(conn, new())
    assert ledger.entries(conn)[0].git_sha == "f00d"


def test_history_of_an_untouched_database_says_so(settings, cli):
    result = cli("history")
    assert result.exit_code == 0
    assert "migrator has done nothing to this database yet" in result.stdout
    assert json.loads(cli("--json", "history").stdout) == {"entries": [], "total": 0}


@pytest.fixture
def rolled_back(tmp_path, settings):
    """0001 and 0002 applied, 0002 undone."""
    revisions.tables(tmp_path, 2)
    up.up(settings)
    with connect(settings, "test") as conn:
        last = ledger.entries(conn)[-1]
    with deployer_lock(settings, "deploy") as fence:
        undo.undo_revision(settings, last, reason="it was slow", run=uuid4(), fence=fence)


def test_history_shows_the_newest_first_with_reasons(rolled_back, cli):
    lines = cli("history").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["entry", "3", "2", "1"]
    assert "rollback 0002" in lines[1]
    assert "it was slow" in lines[1]
    assert "Revision 0002 (undone by 3)" in lines[2]


def test_history_works_without_any_file(rolled_back, tmp_path, cli):
    (tmp_path / "migrations").rename(tmp_path / "elsewhere")
    assert len(cli("history").stdout.splitlines()) == 4


def test_history_can_be_limited(rolled_back, cli):
    lines = cli("history", "--limit", "1").stdout.splitlines()
    assert lines[1].startswith("3 ")
    assert lines[2] == "2 older entries; --limit 3 shows all"


def test_history_for_programs_holds_every_column(rolled_back, cli):
    document = json.loads(cli("--json", "history", "--limit", "1").stdout)
    (entry,) = document["entries"]
    assert (entry["act"], entry["undoes"], document["total"]) == ("rollback", 2, 3)
    assert {"entry_hash", "previous_hash", "role", "client", "git_sha"} <= set(entry)


def test_an_applied_revision_has_the_hash_of_the_sql_it_sent(tmp_path, settings):
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("-- why\\nCREATE TABLE t (a int);")', "DROP TABLE t;"),
        ("0002", 'op.get_bind().exec_driver_sql("create  table u(a int)")', "DROP TABLE u;"),
        ("0003", revisions.CONCURRENTLY.format(kwargs=""), "DROP INDEX t_a;"),
    )
    up.up(settings)
    with connect(settings, "test") as conn:
        hashes = [entry.sql_hash for entry in ledger.entries(conn)]
    assert hashes == [
        sql_hash(["CREATE TABLE t (a int)"]),
        sql_hash(["CREATE TABLE u (a int)"]),
        sql_hash(["CREATE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a)"]),
    ]


def test_a_retried_revision_has_the_hash_of_its_last_attempt(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    revisions.write(
        tmp_path,
        "0002",
        """
        op.execute("SELECT 1")
        op.execute("DROP TABLE t1")
        """,
        revises="0001",
        head='phase = "contract"',
    )
    up.up(settings, to="0001")
    with psycopg.connect(db.info.dsn) as reader:
        reader.execute("SELECT * FROM t1")
        up.up(settings, progress=lambda step: isinstance(step, Retry) and reader.rollback())
    with connect(settings, "test") as conn:
        assert ledger.entries(conn)[-1].sql_hash == sql_hash(["SELECT 1", "DROP TABLE t1"])


def test_no_link_is_broken_in_what_was_written(rolled_back, conn):
    assert ledger.broken_links(ledger.entries(conn)) == []


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE migrator.ledger SET reason = 'x' WHERE entry = 2", [(2, True, False)]),
        ("DELETE FROM migrator.ledger WHERE entry = 2", [(3, False, True)]),
        ("DELETE FROM migrator.ledger WHERE entry = 1", [(2, False, True)]),
        ("UPDATE migrator.ledger SET previous_hash = 'x' WHERE entry = 3", [(3, True, True)]),
    ],
)
def test_a_tampered_entry_is_named_and_those_after_it_are_not(conn, tampering, broken):
    for number in range(4):
        with conn.transaction():
            ledger.append(conn, new(f"{number:04}"))
    conn.execute(tampering)
    found = ledger.broken_links(ledger.entries(conn))
    assert [(b.entry.entry, b.is_edited, b.follows_another) for b in found] == broken
