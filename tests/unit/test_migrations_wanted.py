from __future__ import annotations

import pytest

from migrator.migrations import wanted

EVERY_MODE = 8


def wants(sql):
    return {want.relation: want for want in wanted.of(sql)}


def test_a_name_is_quoted_part_by_part():
    assert list(wants('ALTER TABLE shop."Order lines" ADD a int')) == ['"shop"."Order lines"']


def test_access_exclusive_waits_for_everybody():
    want = wants("ALTER TABLE t ADD a int")['"t"']
    assert len(want.conflicts) == EVERY_MODE
    assert not want.blocks_nobody


def test_a_plain_index_lets_readers_and_other_builds_through():
    want = wants("CREATE INDEX i ON t (a)")['"t"']
    assert "AccessShareLock" not in want.conflicts
    assert "ShareLock" not in want.conflicts
    assert "RowExclusiveLock" in want.conflicts
    assert not want.blocks_nobody


def test_a_concurrent_build_blocks_nobody_and_waits_for_writers_and_snapshots():
    want = wants("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)")['"t"']
    assert want.blocks_nobody
    assert want.snapshots
    assert "RowExclusiveLock" in want.conflicts
    assert "AccessShareLock" not in want.conflicts


@pytest.mark.parametrize(
    "statement", ["DROP INDEX CONCURRENTLY IF EXISTS t_a", "REINDEX INDEX CONCURRENTLY t_a"]
)
def test_a_concurrent_removal_waits_for_readers_too(statement):
    want = wants(statement)['"t_a"']
    assert want.blocks_nobody
    assert len(want.conflicts) == EVERY_MODE


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE t VALIDATE CONSTRAINT c", "VACUUM t", "ANALYZE t"]
)
def test_what_blocks_nobody_is_known(statement):
    assert wants(statement)['"t"'].blocks_nobody


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "SELECT FROM t",
        "CREATE TABLE t (a int)",
        "no SQL",
    ],
)
def test_no_table_lock_is_asked_for_that_somebody_could_queue_behind(statement):
    assert wants(statement) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE a (id bigint REFERENCES t)",
        "CREATE TABLE a PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE a () INHERITS (t)",
        "CREATE TABLE a (id bigint); ALTER TABLE t ADD b int",
    ],
)
def test_a_new_table_that_names_another_asks_for_that_one(statement):
    assert '"t"' in wants(statement)


def test_a_new_table_that_names_no_other_asks_for_nothing_and_is_not_parsed(monkeypatch):
    monkeypatch.setattr(wanted.scripts, "parsed", None)
    assert wants("create table a (\n  id bigint primary key,\n  note text\n);\n") == {}
