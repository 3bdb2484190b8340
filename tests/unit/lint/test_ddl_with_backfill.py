"""The definition is changed in one transaction, the rows in others."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.ddl_with_backfill import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a ADD x int;\nUPDATE a SET x = 1;",
        "ALTER TABLE a ADD x int;\nDELETE FROM b WHERE y > 1;",
        "ALTER TABLE a ADD x int;\nINSERT INTO b SELECT y FROM a;",
        "ALTER TABLE a ADD x int;\nMERGE INTO b USING a ON a.y = b.y WHEN MATCHED THEN DELETE;",
        "ALTER TABLE a ADD x int;\nWITH u AS (UPDATE a SET x = 1 RETURNING y) SELECT y FROM u;",
        "SELECT 1;\nUPDATE a SET x = 1; ALTER TABLE a ALTER x SET NOT NULL;",
        "CREATE INDEX ON a (x);\nUPDATE b SET x = 1;",
    ],
)
def test_both_in_one_transaction_are_found(sql):
    assert lines(RULE, sql) == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE a SET x = 1;",
        "ALTER TABLE a ADD x int; INSERT INTO b VALUES (1), (2);",
        "ALTER TABLE a ADD x int; UPDATE a SET x = 1 WHERE id BETWEEN 1 AND 1000;",
        "ALTER TABLE a ADD x int; COMMIT; UPDATE a SET x = 1;",
        "CREATE TABLE b (y int); INSERT INTO b SELECT y FROM a;",
        "ALTER TABLE a ADD x int; UPDATE alembic_version SET version_num = 'b';",
        "ALTER TABLE a ADD x int; UPDATE public.alembic_version SET version_num = 'b';",
        "COMMENT ON TABLE a IS 'x'; UPDATE a SET x = 1;",
    ],
)
def test_one_of_them_alone_is_fine(sql):
    assert lines(RULE, sql) == []


def test_the_rewrite_writes_a_page_of_the_rows_still_to_do():
    (found,) = findings(RULE, "ALTER TABLE a ADD x int; UPDATE a SET x = y WHERE z > 1;")
    assert "WHERE z > 1 AND x IS DISTINCT FROM y LIMIT 1000" in found.rewrite


@pytest.mark.parametrize("value", ["x + 1", "now()", "CURRENT_TIMESTAMP", "(SELECT 1)", "DEFAULT"])
def test_what_would_never_come_to_an_end_is_not_rewritten_as_a_loop(value):
    (found,) = findings(RULE, f"ALTER TABLE a ADD x int; UPDATE a SET x = {value};")
    assert "repeated" not in found.rewrite
    assert "keyset pages" in found.rewrite
