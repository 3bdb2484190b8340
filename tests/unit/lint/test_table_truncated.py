"""A table that stands is not emptied at once."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.table_truncated import RULE
from tests.unit.lint.checking import findings, lines


def test_each_table_is_found():
    found = findings(RULE, 'TRUNCATE TABLE a, ONLY s."B"')
    assert [each.table for each in found] == ["a", "s.B"]
    assert 'DELETE FROM s."B" WHERE ctid' in found[1].rewrite


def test_cascade_is_told():
    (found,) = findings(RULE, "TRUNCATE a CASCADE")
    assert "and of every table that refers to it" in found.message


@pytest.mark.parametrize("sql", ["CREATE TABLE a (x int); TRUNCATE a", "DELETE FROM a"])
def test_a_new_table_or_a_delete_is_fine(sql):
    assert lines(RULE, sql) == []
