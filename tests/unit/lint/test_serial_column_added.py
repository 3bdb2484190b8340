"""No serial column is added to a table that stands."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.serial_column_added import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "kind", ["serial", "bigserial", "smallserial", "serial4", "serial8", "serial2", "SERIAL"]
)
def test_a_serial_column_is_found(kind):
    assert lines(RULE, f"ALTER TABLE a ADD x int, ADD COLUMN IF NOT EXISTS n {kind}") == [1]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (n bigserial)",
        "CREATE TABLE a (x int); ALTER TABLE a ADD COLUMN n bigserial",
        "ALTER TABLE a ADD COLUMN n bigint",
        'ALTER TABLE a ADD COLUMN "serial" int',
        "ALTER TABLE a DROP COLUMN n",
    ],
)
def test_a_new_table_or_another_type_is_fine(sql):
    assert lines(RULE, sql) == []


def test_the_rewrite_keeps_schema_and_quotes():
    (found,) = findings(RULE, 'ALTER TABLE s."A" ADD COLUMN n bigserial')
    assert 'CREATE SEQUENCE s."A_n_seq" AS bigint' in found.rewrite
    assert """SET DEFAULT nextval('s."A_n_seq"')""" in found.rewrite
