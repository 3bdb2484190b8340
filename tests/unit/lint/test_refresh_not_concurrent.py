"""A refresh lets the view's readers read."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.refresh_not_concurrent import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize("name", ["mv", "s.mv", '"M v"'])
def test_a_refresh_that_blocks_is_found_and_rewritten(name):
    (found,) = findings(RULE, f"REFRESH MATERIALIZED VIEW {name}")
    assert f"REFRESH MATERIALIZED VIEW CONCURRENTLY {name};" in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        "REFRESH MATERIALIZED VIEW CONCURRENTLY mv",
        "REFRESH MATERIALIZED VIEW mv WITH NO DATA",
        "CREATE MATERIALIZED VIEW mv AS SELECT 1 AS x WITH NO DATA; REFRESH MATERIALIZED VIEW mv",
    ],
)
def test_concurrent_empty_or_new_is_fine(sql):
    assert lines(RULE, sql) == []
