"""One table locked at a time."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.several_tables_locked import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a ADD x int;\nALTER TABLE b ADD x int;",
        "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();\nTRUNCATE b;",
        'ALTER TABLE "A" ADD x int;\nALTER TABLE a ADD x int;',
        "ALTER TABLE s.a ADD x int;\nALTER TABLE a ADD x int;",
        "CREATE INDEX ON a (x);\nCREATE INDEX ON b (x);",
        "ALTER TABLE a ADD x int;\nALTER TABLE b ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES c;",
        "SELECT 1;\nDROP TABLE IF EXISTS a, b;",
    ],
)
def test_a_second_table_is_found(sql):
    assert lines(RULE, sql) == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a ADD x int; ALTER TABLE public.a ADD y int;",
        "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES b NOT VALID;",
        "CREATE TABLE b (x int); ALTER TABLE a ADD x int; ALTER TABLE b ADD y int;",
        "ALTER TABLE a ADD x int; COMMIT; ALTER TABLE b ADD x int;",
        "ALTER TABLE a ADD x int; ALTER TABLE b VALIDATE CONSTRAINT c;",
        "ALTER TABLE a ADD x int; INSERT INTO b VALUES (1);",
        "ALTER TABLE a ADD x int; COMMENT ON TABLE b IS 'x';",
    ],
)
def test_one_table_or_a_weak_lock_is_fine(sql):
    assert lines(RULE, sql) == []


def test_outside_a_transaction_each_statement_lets_go():
    sql = "ALTER TABLE a ADD x int; ALTER TABLE b ADD x int;"
    assert lines(RULE, sql, in_transaction=False) == []
    assert lines(RULE, f"BEGIN; {sql} COMMIT;", in_transaction=False) == [1]


def test_the_message_names_both_tables_and_modes():
    (finding,) = findings(RULE, "ALTER TABLE a ADD x int; CREATE INDEX ON b (x);")
    assert "b is locked (SHARE) while a is held (ACCESS EXCLUSIVE)" in finding.message
    assert finding.table == "b"
