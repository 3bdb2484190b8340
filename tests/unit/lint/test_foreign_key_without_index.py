"""A foreign key's own columns are led by an index."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.foreign_key_without_index import RULE
from tests.unit.lint.checking import findings, lines

ADD = "ALTER TABLE c ADD CONSTRAINT f FOREIGN KEY (a, b) REFERENCES p NOT VALID;"


@pytest.mark.parametrize(
    "sql",
    [
        ADD,
        "ALTER TABLE c ADD COLUMN p_id int REFERENCES p",
        "CREATE TABLE c (id int PRIMARY KEY, p_id int REFERENCES p)",
        "CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES p)",
        f"CREATE INDEX ON c (a); {ADD}",
        f"CREATE INDEX ON c (a, x, b); {ADD}",
        f"CREATE INDEX ON c (a, b) WHERE a > 1; {ADD}",
        f"CREATE INDEX ON c (lower(a), b); {ADD}",
        f"CREATE INDEX ON other.c (a, b); {ADD}",
    ],
)
def test_columns_without_an_index_are_found(sql):
    assert len(lines(RULE, sql)) == 1


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE INDEX ON c (b, a, x); {ADD}",
        f"{ADD} CREATE INDEX CONCURRENTLY ON public.c (a, b);",
        "CREATE TABLE c (p_id int PRIMARY KEY REFERENCES p)",
        "CREATE TABLE c (p_id int REFERENCES p, UNIQUE (p_id, x), x int)",
        "CREATE TABLE c (id int)",
    ],
)
def test_columns_that_the_script_indexes_are_fine(sql):
    assert lines(RULE, sql) == []


def test_an_index_of_the_database_counts():
    around = Surroundings(indexes={"public.c": frozenset({("a", "b")})})
    assert lines(RULE, ADD, around) == []
    assert lines(RULE, ADD, Surroundings(indexes={"c": frozenset({("b",)})})) == [1]


def test_a_new_table_is_not_excused_by_being_new():
    """Findings with a table that the script makes are dropped as locks that nobody waits for."""
    (new,) = findings(RULE, "CREATE TABLE c (p_id int REFERENCES p)")
    (standing,) = findings(RULE, ADD)
    assert (new.table, standing.table) == (None, "c")


def test_the_rewrite_is_the_index():
    (found,) = findings(RULE, 'ALTER TABLE s."C" ADD COLUMN "P id" int REFERENCES p')
    made = 'CREATE INDEX CONCURRENTLY IF NOT EXISTS "C_P id_idx" ON s."C" ("P id");'
    assert made in found.rewrite
