"""Columns are jsonb."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.json_column import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (x json)",
        "ALTER TABLE a ADD COLUMN x json",
        "ALTER TABLE a ADD COLUMN x JSON DEFAULT '{}'",
        "ALTER TABLE a ADD y int, ALTER x TYPE pg_catalog.json USING x::json",
        "CREATE TABLE a (x json[])",
    ],
)
def test_json_is_found_and_rewritten(sql):
    (found,) = findings(RULE, sql)
    assert "x jsonb" in found.rewrite or "x TYPE jsonb" in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (x jsonb)",
        "ALTER TABLE a ADD COLUMN json text",
        "ALTER TABLE a DROP COLUMN x",
        "SELECT x::json FROM a",
        "CREATE TABLE a AS SELECT 1",
    ],
)
def test_other_types_and_casts_are_fine(sql):
    assert lines(RULE, sql) == []


def test_each_column_is_found():
    assert lines(RULE, "CREATE TABLE a (\n x json,\n y json)") == [1, 1]
