"""A setting ends with its transaction."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.setting_outlives_transaction import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "setting", ["lock_timeout = '1s'", "search_path = shop, public", "work_mem = 64"]
)
def test_one_that_stays_is_found_and_rewritten(setting):
    (found,) = findings(RULE, f"SET {setting}; SELECT 1")
    assert found.severity == "notice"
    assert found.rewrite.startswith("SET LOCAL ")


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL lock_timeout = '1s'; SELECT 1",
        "SET lock_timeout = '1s'; SELECT 1; RESET lock_timeout",
        "SET lock_timeout = '1s'; SELECT 1; SET lock_timeout TO DEFAULT",
        "SET lock_timeout = '1s'; SELECT 1; RESET ALL",
        "SELECT 1",
    ],
)
def test_one_that_ends_is_fine(sql):
    assert lines(RULE, sql) == []


def test_outside_a_transaction_set_is_right_and_set_local_without_effect():
    assert lines(RULE, "SET lock_timeout = '1s'; SELECT 1", in_transaction=False) == []
    (found,) = findings(RULE, "SET LOCAL lock_timeout = '1s'; SELECT 1", in_transaction=False)
    assert found.message.startswith("SET LOCAL outside a transaction has no effect")
    assert "RESET lock_timeout;" in found.rewrite


def test_a_files_own_transaction_counts():
    sql = "BEGIN; SET LOCAL lock_timeout = '1s'; SELECT 1; COMMIT;"
    assert lines(RULE, sql, in_transaction=False) == []
