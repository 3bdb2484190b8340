"""A write says which rows, or how many."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.unbounded_write import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE a SET x = 1 WHERE y > 2",
        "UPDATE a SET x = 1 WHERE state = 'new'",
        "UPDATE a SET x = 1 WHERE id > 5",
        "UPDATE a SET x = 1 WHERE id = 1 OR y = 2",
        "UPDATE a SET x = b.y FROM b WHERE b.id = a.id",
        "UPDATE a SET x = b.y FROM b",
        "DELETE FROM a USING b WHERE b.id = a.id",
        "DELETE FROM a WHERE id IN (SELECT id FROM b)",
        "INSERT INTO a SELECT * FROM b",
        "WITH w AS (SELECT 1) INSERT INTO a SELECT x FROM b ON CONFLICT DO NOTHING",
        "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE",
    ],
)
def test_an_unbounded_write_is_found(sql):
    assert lines(RULE, sql) == [1]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE a SET x = 1 WHERE id = 7",
        "UPDATE a SET x = 1 WHERE a.order_id = $1 AND y > 2",
        "UPDATE a SET x = 1 WHERE id IN (1, 2)",
        "UPDATE a SET x = 1 WHERE id BETWEEN 1 AND 1000",
        "UPDATE a SET x = 1 WHERE id >= 1 AND id < 1000 AND y > 2",
        "UPDATE a SET x = 1 WHERE ctid = ANY (ARRAY(SELECT ctid FROM a LIMIT 1000))",
        "DELETE FROM a WHERE id IN (SELECT id FROM a WHERE y > 2 LIMIT 500)",
        "INSERT INTO a VALUES (1), (2)",
        "INSERT INTO a SELECT 1",
        "INSERT INTO a SELECT x FROM b LIMIT 10",
        "INSERT INTO a DEFAULT VALUES",
        "MERGE INTO a USING (VALUES (1)) v (id) ON a.id = v.id WHEN MATCHED THEN DELETE",
        "CREATE TABLE a (x int); INSERT INTO a SELECT x FROM b",
    ],
)
def test_a_bounded_write_is_fine(sql):
    assert lines(RULE, sql) == []


@pytest.mark.parametrize("sql", ["UPDATE a SET x = 1", "DELETE FROM a"])
def test_without_where_another_rule_speaks(sql):
    assert lines(RULE, sql) == []


def test_a_join_is_not_rewritten_as_a_loop():
    (found,) = findings(RULE, "UPDATE a SET x = b.y FROM b WHERE b.id = a.id")
    assert "LIMIT" not in found.rewrite
