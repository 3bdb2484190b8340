"""EXCLUDE is there before the rows."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.exclusion_constraint_added import RULE
from tests.unit.lint.checking import findings, lines

ADD = 'ALTER TABLE s."A" ADD x int, ADD CONSTRAINT k EXCLUDE USING gist (r WITH &&)'


def test_it_is_found_on_a_table_that_stands():
    (found,) = findings(RULE, ADD)
    assert 'CREATE TABLE s."A_new" (LIKE s."A" INCLUDING ALL);' in found.rewrite
    assert 'ALTER TABLE s."A_new" ADD CONSTRAINT k EXCLUDE' in found.rewrite
    assert "ADD COLUMN x" not in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        f'CREATE TABLE s."A" (r int4range); {ADD}',
        "CREATE TABLE a (r int4range, EXCLUDE USING gist (r WITH &&))",
        "ALTER TABLE a ADD CONSTRAINT k CHECK (x > 0)",
        "ALTER TABLE a DROP CONSTRAINT k",
    ],
)
def test_on_a_new_table_it_is_fine(sql):
    assert lines(RULE, sql) == []
