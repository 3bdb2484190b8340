"""Nothing slow runs while nobody can read a table."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.work_after_access_exclusive import RULE
from tests.unit.lint.checking import lines

HELD = "ALTER TABLE a ADD x int;\n"


@pytest.mark.parametrize(
    "work",
    [
        "SELECT count(*) FROM b",
        "SELECT recompute()",
        "INSERT INTO b VALUES (1)",
        "UPDATE b SET x = 1 WHERE id = 1",
        "CREATE INDEX ON b (x)",
        "CREATE TABLE c AS SELECT x FROM b",
        "REFRESH MATERIALIZED VIEW mv",
        "ALTER TABLE a VALIDATE CONSTRAINT k",
        "ALTER TABLE a ALTER x SET NOT NULL",
        "DO 'BEGIN END'",
        "ANALYZE b",
    ],
)
def test_work_behind_the_lock_is_found(work):
    assert lines(RULE, HELD + work) == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM b; ALTER TABLE a ADD x int",
        "ALTER TABLE a ADD x int; COMMENT ON COLUMN a.x IS 'x'",
        "ALTER TABLE a ADD x int; SET LOCAL lock_timeout = '1s'; SELECT 1",
        "ALTER TABLE a ADD x int; ALTER TABLE a ADD y int",
        "CREATE TABLE a (y int); ALTER TABLE a ADD x int; SELECT count(*) FROM a",
        "CREATE TABLE b (y int); ALTER TABLE a ADD x int; CREATE INDEX ON b (y)",
        "ALTER TABLE a ADD x int; COMMIT; SELECT count(*) FROM b",
        "ALTER TABLE a ADD x int; UPDATE alembic_version SET version_num = 'b'",
        "CREATE INDEX ON a (x); SELECT count(*) FROM b",
    ],
)
def test_what_is_quick_or_before_or_apart_is_fine(sql):
    assert lines(RULE, sql) == []


def test_a_backfill_is_left_to_its_own_rule():
    assert lines(RULE, HELD + "UPDATE b SET x = 1") == []
