"""A primary key takes an index only over columns that hold no NULL."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.primary_key_on_nullable_column import RULE
from tests.unit.lint.checking import findings

INDEX = "CREATE UNIQUE INDEX CONCURRENTLY i ON a (x, y);"
KEY = "ALTER TABLE a ADD CONSTRAINT k PRIMARY KEY USING INDEX i;"


def severities(sql, **not_null):
    around = Surroundings(not_null={name: frozenset(each) for name, each in not_null.items()})
    return [each.severity for each in findings(RULE, sql, around)]


@pytest.mark.parametrize(
    ("sql", "not_null", "severity"),
    [
        (KEY, {}, "notice"),
        (INDEX + KEY, {}, "notice"),
        (INDEX + KEY, {"a": {"x"}}, "warning"),
        (INDEX + "ALTER TABLE a ALTER x SET NOT NULL;" + KEY, {"a": set()}, "warning"),
        (INDEX + KEY, {"b": {"x", "y"}}, "notice"),
    ],
)
def test_a_column_that_may_hold_null_is_found(sql, not_null, severity):
    assert severities(sql, **not_null) == [severity]


@pytest.mark.parametrize(
    ("sql", "not_null"),
    [
        (INDEX + KEY, {"a": {"x", "y", "z"}}),
        (INDEX + "ALTER TABLE public.a ALTER x SET NOT NULL, ALTER y SET NOT NULL;" + KEY, {}),
        ("CREATE TABLE a (x int, y int);" + INDEX + KEY, {}),
        ("ALTER TABLE a ADD CONSTRAINT k UNIQUE USING INDEX i", {}),
        ("ALTER TABLE a ADD PRIMARY KEY (x)", {}),
    ],
)
def test_columns_known_to_hold_none_are_fine(sql, not_null):
    assert severities(sql, **not_null) == []


def test_the_message_names_the_columns():
    (found,) = findings(RULE, INDEX + KEY, Surroundings(not_null={"a": frozenset({"x"})}))
    assert found.message.startswith("y may hold NULL")
    assert "CHECK (y IS NOT NULL) NOT VALID" in found.rewrite
