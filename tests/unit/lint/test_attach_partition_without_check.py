"""A partition is attached with its bound proven."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.attach_partition_without_check import RULE
from tests.unit.lint.checking import findings, lines

ATTACH = "ALTER TABLE p ATTACH PARTITION s.c FOR VALUES FROM (1) TO (10);"


@pytest.mark.parametrize(
    ("bound", "proof"),
    [
        ("FOR VALUES FROM (1) TO (10)", "partition_key >= 1 AND partition_key < 10"),
        ("FOR VALUES FROM (MINVALUE) TO (10)", "IS NOT NULL AND partition_key < 10"),
        ("FOR VALUES IN ('a', 'b')", "partition_key IN ('a', 'b')"),
        ("FOR VALUES FROM (1, 2) TO (3, 4)", "IS NOT NULL)"),
        ("FOR VALUES WITH (MODULUS 3, REMAINDER 1)", "IS NOT NULL)"),
        ("DEFAULT", "IS NOT NULL)"),
    ],
)
def test_a_table_with_nothing_proven_is_found(bound, proof):
    (found,) = findings(RULE, f"ALTER TABLE p ATTACH PARTITION s.c {bound}")
    assert proof in found.rewrite
    assert found.table == "s.c"


@pytest.mark.parametrize(
    "sql",
    [
        f"ALTER TABLE s.c VALIDATE CONSTRAINT k; {ATTACH}",
        f"ALTER TABLE s.c ADD CONSTRAINT k CHECK (id >= 1 AND id < 10); {ATTACH}",
        f"CREATE TABLE s.c (id int); {ATTACH}",
        "ALTER INDEX p_id ATTACH PARTITION c_id",
        "ALTER TABLE p DETACH PARTITION c",
    ],
)
def test_proven_or_new_it_is_fine(sql):
    assert lines(RULE, sql) == []


def test_not_valid_proves_nothing():
    sql = f"ALTER TABLE s.c ADD CONSTRAINT k CHECK (id >= 1) NOT VALID;\n{ATTACH}"
    assert lines(RULE, sql) == [2]
