"""IF NOT EXISTS does not hide an INVALID index."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.if_not_exists_over_invalid_index import RULE
from tests.unit.lint.checking import findings

MAKE = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON s.a (x)"
INVALID = Surroundings(invalid_indexes=frozenset({"s.i"}))


def severities(sql, around=None, **script):
    found = findings(RULE, sql, around or Surroundings(), in_transaction=False, **script)
    return [each.severity for each in found]


def test_in_a_file_it_may_pass_over_one():
    assert severities(MAKE) == ["warning"]


def test_in_a_file_it_does_pass_over_one_that_is_there():
    assert severities(MAKE, INVALID) == ["error"]


def test_for_a_revision_up_takes_care_of_it():
    assert severities(MAKE, revision="0004") == []
    assert severities(MAKE, INVALID, revision="0004") == ["notice"]


@pytest.mark.parametrize(
    "sql",
    [
        f"DROP INDEX CONCURRENTLY IF EXISTS s.i; {MAKE}",
        "CREATE INDEX CONCURRENTLY i ON s.a (x)",
        "CREATE INDEX IF NOT EXISTS i ON s.a (x)",
    ],
)
def test_dropped_first_or_made_to_fail_it_is_fine(sql):
    assert severities(sql, INVALID) == []


def test_the_rewrite_drops_it_where_it_lies():
    (found,) = findings(RULE, MAKE)
    assert found.rewrite.startswith("DROP INDEX CONCURRENTLY IF EXISTS s.i;\nCREATE UNIQUE INDEX")


def test_an_index_in_public_is_known_by_both_names():
    around = Surroundings(invalid_indexes=frozenset({"public.i"}))
    assert severities("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (x)", around) == ["error"]
