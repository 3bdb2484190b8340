"""LOCK TABLE is seen where it blocks writers."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.table_locked_by_hand import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    ("mode", "whom"),
    [
        ("", "readers and writers"),
        ("IN ACCESS EXCLUSIVE MODE", "readers and writers"),
        ("IN EXCLUSIVE MODE NOWAIT", "the writers"),
        ("IN SHARE ROW EXCLUSIVE MODE", "the writers"),
        ("IN SHARE MODE", "the writers"),
    ],
)
def test_a_mode_that_blocks_writers_is_found(mode, whom):
    (found,) = findings(RULE, f"LOCK TABLE ONLY a {mode}")
    assert whom in found.message


def test_each_table_is_found():
    assert [each.table for each in findings(RULE, "LOCK a, s.b")] == ["a", "s.b"]


@pytest.mark.parametrize(
    "sql",
    [
        "LOCK TABLE a IN SHARE UPDATE EXCLUSIVE MODE",
        "LOCK TABLE a IN ACCESS SHARE MODE",
        "CREATE TABLE a (x int); LOCK TABLE a",
        "SELECT x FROM a FOR UPDATE",
    ],
)
def test_a_weaker_mode_or_a_new_table_is_fine(sql):
    assert lines(RULE, sql) == []
