"""NOT VALID and VALIDATE are two transactions."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.validate_in_same_transaction import RULE
from tests.unit.lint.checking import findings, lines

ADD = "ALTER TABLE a ADD CONSTRAINT k CHECK (x > 0) NOT VALID;\n"


@pytest.mark.parametrize(
    "sql",
    [
        ADD + "ALTER TABLE a VALIDATE CONSTRAINT k",
        ADD + "ALTER TABLE public.a VALIDATE CONSTRAINT k",
        ADD + "ALTER TABLE a ADD y int, VALIDATE CONSTRAINT k",
        (
            "ALTER TABLE a ADD CONSTRAINT k FOREIGN KEY (x) REFERENCES b NOT VALID;\n"
            "ALTER TABLE IF EXISTS ONLY a VALIDATE CONSTRAINT k"
        ),
    ],
)
def test_both_in_one_transaction_are_found(sql):
    assert lines(RULE, sql) == [2]


@pytest.mark.parametrize(
    "sql",
    [
        ADD + "COMMIT; ALTER TABLE a VALIDATE CONSTRAINT k",
        ADD + "ALTER TABLE a VALIDATE CONSTRAINT other",
        ADD + "ALTER TABLE b VALIDATE CONSTRAINT k",
        "ALTER TABLE a VALIDATE CONSTRAINT k;" + ADD,
        "CREATE TABLE a (x int);" + ADD + "ALTER TABLE a VALIDATE CONSTRAINT k",
    ],
)
def test_apart_or_of_another_constraint_they_are_fine(sql):
    assert lines(RULE, sql) == []


def test_outside_a_transaction_they_are_apart():
    sql = ADD + "ALTER TABLE a VALIDATE CONSTRAINT k"
    assert lines(RULE, sql, in_transaction=False) == []


def test_the_rewrite_quotes_what_must_be_quoted():
    sql = 'ALTER TABLE s."A b" ADD CONSTRAINT "K" CHECK (x > 0) NOT VALID, VALIDATE CONSTRAINT "K"'
    (found,) = findings(RULE, sql)
    assert 'ALTER TABLE s."A b" VALIDATE CONSTRAINT "K";' in found.rewrite
