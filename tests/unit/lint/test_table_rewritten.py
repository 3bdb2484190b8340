"""No table is copied under ACCESS EXCLUSIVE."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.table_rewritten import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("VACUUM FULL a", "VACUUM FULL"),
        ("VACUUM (FULL, ANALYZE) a", "VACUUM FULL"),
        ("VACUUM (FULL true) a", "VACUUM FULL"),
        ("CLUSTER a USING i", "CLUSTER"),
        ("CLUSTER VERBOSE a", "CLUSTER"),
        ("ALTER TABLE a SET LOGGED", "SET LOGGED"),
        ("ALTER TABLE a ADD x int, SET UNLOGGED", "SET UNLOGGED"),
        ("ALTER TABLE IF EXISTS a SET TABLESPACE t", "SET TABLESPACE"),
        ("ALTER TABLE a SET ACCESS METHOD columnar", "SET ACCESS METHOD"),
    ],
)
def test_a_copy_of_the_table_is_found(sql, said):
    (found,) = findings(RULE, sql)
    assert found.message.startswith(f"{said} copies all of a ")


def test_each_table_of_one_vacuum_is_found():
    assert [each.table for each in findings(RULE, "VACUUM FULL a, s.b")] == ["a", "s.b"]


@pytest.mark.parametrize(
    "sql",
    [
        "VACUUM a",
        "VACUUM (FULL false) a",
        "VACUUM (FULL off, ANALYZE) a",
        "CREATE TABLE a (x int); ALTER TABLE a SET UNLOGGED",
        "ALTER INDEX i SET TABLESPACE t",
        "ALTER TABLE a SET (fillfactor = 70)",
    ],
)
def test_what_copies_no_table_is_fine(sql):
    assert lines(RULE, sql) == []
