"""One foreign key a transaction."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.several_foreign_keys import RULE
from tests.unit.lint.checking import findings, lines

ONE = "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES b NOT VALID;\n"
OTHER = "ALTER TABLE a ADD CONSTRAINT g FOREIGN KEY (y) REFERENCES c NOT VALID;\n"


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        (ONE + OTHER, 2),
        (ONE + "ALTER TABLE d ADD COLUMN y int REFERENCES c", 2),
        ("ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b, ADD FOREIGN KEY (y) REFERENCES c", 1),
    ],
)
def test_a_second_one_is_found(sql, line):
    assert lines(RULE, sql) == [line]


@pytest.mark.parametrize(
    "sql",
    [
        ONE,
        ONE + "COMMIT;" + OTHER,
        ONE + "ALTER TABLE a ADD FOREIGN KEY (y) REFERENCES public.b NOT VALID",
        "CREATE TABLE a (x int, y int);" + ONE + OTHER,
    ],
)
def test_one_pair_of_tables_is_fine(sql):
    assert lines(RULE, sql) == []


def test_the_rewrite_is_that_one_alone():
    (found,) = findings(
        RULE, "ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b, ADD FOREIGN KEY (y) REFERENCES c"
    )
    assert "REFERENCES c" in found.rewrite
    assert "REFERENCES b" not in found.rewrite
