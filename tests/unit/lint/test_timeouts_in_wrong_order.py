"""A wait for a lock ends as one."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.timeouts_in_wrong_order import RULE
from tests.unit.lint.checking import lines

RUNNER = Surroundings(lock_timeout_ms=500, statement_timeout_ms=60_000)


@pytest.mark.parametrize(
    "sql",
    [
        "SET lock_timeout = '5s';\nSET statement_timeout = '5s'",
        "SET statement_timeout = '1s';\nSET lock_timeout = '2s'",
        "SELECT 1;\nSET LOCAL statement_timeout = '400ms'",
        "SET LOCAL statement_timeout = 0;\nSET LOCAL statement_timeout = '100ms'",
    ],
)
def test_the_wrong_order_is_found(sql):
    assert lines(RULE, sql, RUNNER, revision="0004") == [2]


@pytest.mark.parametrize(
    "sql",
    [
        "SET lock_timeout = '1s'; SET statement_timeout = '5s'",
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = '1ms'",
        "SET lock_timeout = '30s'; RESET lock_timeout; SET statement_timeout = '20s'",
    ],
)
def test_the_right_order_is_fine(sql):
    assert lines(RULE, sql, RUNNER, revision="0004") == []


def test_a_plain_file_has_no_runner():
    assert lines(RULE, "SET statement_timeout = '400ms'") == []
