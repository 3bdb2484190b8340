"""Transactions are begun and ended where they should be."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.transaction_control import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize("word", ["BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK"])
def test_a_revision_has_none(word):
    (found,) = findings(RULE, f"SELECT 1;\n{word};\nSELECT 2;", revision="0004")
    assert (found.line, found.rewrite.splitlines()[-1]) == (2, "SELECT 2;")


@pytest.mark.parametrize("word", ["SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"])
def test_savepoints_are_free(word):
    assert lines(RULE, f"{word};", revision="0004") == []
    assert lines(RULE, f"{word};", in_transaction=True) == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT;", []),
        ("SELECT 1;", []),
        ("BEGIN;\nBEGIN;\nCOMMIT;", [2]),
        ("SELECT 1;\nCOMMIT;", [2]),
        ("BEGIN;\nCREATE TABLE a (x int);", [1]),
        ("BEGIN;\nCOMMIT;\nCOMMIT;", [3]),
    ],
)
def test_a_file_of_its_own_is_balanced(sql, found):
    assert lines(RULE, sql, in_transaction=False) == found


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1;", []),
        ("BEGIN;\nSELECT 1;\nCOMMIT;", [1, 3]),
        ("SELECT 1;\nROLLBACK;", [2]),
    ],
)
def test_a_file_that_is_run_in_a_transaction_has_none(sql, found):
    assert lines(RULE, sql, in_transaction=True) == found
