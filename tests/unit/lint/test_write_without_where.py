"""No write hits every row by a slip."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.write_without_where import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE s.a SET x = 1",
        "DELETE FROM ONLY s.a",
        "WITH gone AS (DELETE FROM s.a RETURNING x) INSERT INTO b SELECT x FROM gone",
        "UPDATE s.a AS t SET x = 1 RETURNING t.x",
    ],
)
def test_a_write_without_where_is_found(sql):
    (found,) = findings(RULE, sql)
    assert (found.severity, found.table) == ("error", "s.a")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE a SET x = 1 WHERE true",
        "UPDATE a SET x = b.y FROM b",
        "DELETE FROM a USING b WHERE a.id = b.id",
        "CREATE TABLE a (x int); UPDATE a SET x = 1",
        "UPDATE alembic_version SET version_num = 'b'",
        "DELETE FROM alembic_version",
        "TRUNCATE a",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM a; END",
    ],
)
def test_where_a_join_or_a_new_table_is_fine(sql):
    assert lines(RULE, sql) == []


def test_the_rewrite_takes_a_page_at_a_time():
    (found,) = findings(RULE, 'UPDATE "A" SET "X" = 1')
    assert 'SELECT ctid FROM "A" WHERE "X" IS DISTINCT FROM 1 LIMIT 1000' in found.rewrite
