"""What cannot be analysed is said."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.dynamic_sql import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN EXECUTE 'DROP TABLE a'; END $$",
        "DO LANGUAGE plpgsql ''",
        "CALL p()",
        "EXECUTE s",
    ],
)
def test_it_is_found(sql):
    (found,) = findings(RULE, f"SELECT 1;\n{sql}")
    assert found.line == 2
    assert found.message.startswith("not analysable")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END'",
        "SELECT f()",
        "INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING",
    ],
)
def test_plain_sql_is_fine(sql):
    assert lines(RULE, sql) == []
