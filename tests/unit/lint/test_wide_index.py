"""An index has few columns."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.wide_index import RULE
from tests.unit.lint.checking import findings, lines


def test_four_columns_are_found():
    (found,) = findings(RULE, "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (x, lower(y), z, w)")
    assert found.severity == "notice"
    assert found.rewrite == "CREATE INDEX CONCURRENTLY ON a (x, (lower(y)), z);"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX ON a (x, y, z)",
        "CREATE INDEX ON a (x, y) INCLUDE (z, w)",
        "CREATE UNIQUE INDEX ON a (x, y, z, w)",
        "CREATE INDEX ON a USING gin (x, y, z, w)",
        "CREATE INDEX ON a USING brin (x, y, z, w)",
    ],
)
def test_three_unique_or_not_a_btree_is_fine(sql):
    assert lines(RULE, sql) == []
