"""What one ALTER TABLE can do is one."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.multiple_alter_table import RULE
from tests.unit.lint.checking import findings, lines

ONE = "ALTER TABLE a ALTER x SET NOT NULL;\n"


@pytest.mark.parametrize(
    "sql",
    [
        ONE + "ALTER TABLE a ALTER y SET NOT NULL",
        ONE + "ALTER TABLE public.a ADD COLUMN z int",
        "ALTER TABLE a ENABLE TRIGGER t;\nALTER TABLE a DISABLE TRIGGER u",
    ],
)
def test_a_second_one_is_found(sql):
    assert lines(RULE, sql) == [2]
    assert lines(RULE, sql, in_transaction=False) == [2]


@pytest.mark.parametrize(
    "sql",
    [
        ONE + "ALTER TABLE b ALTER y SET NOT NULL",
        "ALTER TABLE public.a ADD x int; ALTER TABLE admin.a ADD x int",
        ONE + "COMMIT; ALTER TABLE a ALTER y SET NOT NULL",
        ONE + "SELECT 1; ALTER TABLE a ALTER y SET NOT NULL",
        ONE + "ALTER TABLE a VALIDATE CONSTRAINT k",
        "ALTER TABLE p ATTACH PARTITION c DEFAULT; ALTER TABLE p ATTACH PARTITION d DEFAULT",
        "ALTER TABLE a ADD x int DEFAULT 1; ALTER TABLE a ALTER x DROP DEFAULT",
        "ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b NOT VALID; ALTER TABLE a ADD y int",
        "CREATE TABLE a (x int);" + ONE + "ALTER TABLE a ALTER x SET DEFAULT 1",
        ONE + "ALTER TABLE a RENAME TO b",
    ],
)
def test_what_must_or_may_stand_apart_is_fine(sql):
    assert lines(RULE, sql) == []


def test_the_rewrite_has_every_action():
    sql = ONE + "ALTER TABLE a ALTER y SET NOT NULL; ALTER TABLE a ADD z int"
    assert [each.rewrite for each in findings(RULE, sql)][1] == (
        "ALTER TABLE a ALTER COLUMN x SET NOT NULL, ALTER COLUMN y SET NOT NULL, "
        "ADD COLUMN z integer;"
    )
