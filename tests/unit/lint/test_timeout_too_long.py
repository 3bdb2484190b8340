"""Timeouts bound what others wait."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.timeout_too_long import RULE
from tests.unit.lint.checking import findings, lines

RUNNER = Surroundings(lock_timeout_ms=500, statement_timeout_ms=60_000)
LOCKS = "; ALTER TABLE a ADD x int"


def of_revision(sql):
    return [each.severity for each in findings(RULE, sql, RUNNER, revision="0004")]


@pytest.mark.parametrize(
    ("setting", "severity"),
    [
        ("SET lock_timeout = 0", "error"),
        ("SET LOCAL lock_timeout TO '0'", "error"),
        ("SET LOCAL lock_timeout = '0s'", "error"),
        ('SET "Lock_Timeout" = 0', "error"),
        ("SELECT set_config('lock_timeout', '0', true)", "error"),
        ("SET LOCAL lock_timeout = '501ms'", "warning"),
        ("SET LOCAL lock_timeout = '1.5s'", "warning"),
        ("SET LOCAL lock_timeout = 600", "warning"),
        ("SET LOCAL statement_timeout = '2min'", "warning"),
        ("SET LOCAL statement_timeout = '1 h'", "warning"),
        ("SET SESSION statement_timeout = 0", "error"),
    ],
)
def test_off_or_longer_than_the_runners_is_found(setting, severity):
    assert of_revision(setting + LOCKS) == [severity]


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL lock_timeout = '500ms'" + LOCKS,
        "SET LOCAL statement_timeout = '1min'" + LOCKS,
        "SET LOCAL lock_timeout = DEFAULT" + LOCKS,
        "RESET lock_timeout" + LOCKS,
        "SET LOCAL work_mem = 0" + LOCKS,
        "SET LOCAL lock_timeout = nonsense" + LOCKS,
        "SET LOCAL statement_timeout = 0; ALTER TABLE a VALIDATE CONSTRAINT k",
        "ALTER TABLE a ADD x int; SET LOCAL statement_timeout = 0",
        "SET LOCAL lock_timeout = 0; CREATE TABLE a (x int)" + LOCKS,
    ],
)
def test_short_ones_and_those_that_block_nobody_are_fine(sql):
    assert of_revision(sql) == []


def test_a_plain_file_may_wait_ten_seconds_for_a_lock():
    assert lines(RULE, "SET lock_timeout = '10s'" + LOCKS) == []
    assert lines(RULE, "SET lock_timeout = '11s'" + LOCKS) == [1]
    assert lines(RULE, "SET statement_timeout = '1h'" + LOCKS) == []


def test_the_rewrite_for_a_plain_file_is_short_not_just_allowed():
    (found,) = findings(RULE, "SET lock_timeout = 0" + LOCKS)
    assert found.rewrite == "SET LOCAL lock_timeout = '500ms';"


def test_the_message_says_found_and_allowed():
    (found,) = findings(RULE, "SET lock_timeout = '90s'" + LOCKS, RUNNER, revision="0004")
    assert found.message.startswith("lock_timeout is 90 s; the longest here is 500 ms")
    assert found.rewrite == "SET LOCAL lock_timeout = '500ms';"
