"""A projection's table is left to its builds."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.projection_table_touched import RULE
from tests.unit.lint.checking import findings, lines

AROUND = Surroundings(projections=frozenset({"orders"}))


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE orders ADD COLUMN x int",
        "ALTER TABLE IF EXISTS ONLY public.orders ALTER x SET NOT NULL, ENABLE TRIGGER t",
        "ALTER TABLE orders RENAME COLUMN x TO y",
        "ALTER TABLE orders RENAME TO old_orders",
        "CREATE TABLE orders (id int)",
        "CREATE INDEX CONCURRENTLY i ON orders (x)",
        "DROP TABLE IF EXISTS a, orders",
        "TRUNCATE orders",
        "UPDATE orders SET x = 1 WHERE id = 1",
        "INSERT INTO orders VALUES (1)",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone",
        "COPY orders FROM STDIN",
        "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES orders",
    ],
)
def test_a_change_or_a_write_is_found(sql):
    (found,) = findings(RULE, sql, AROUND)
    assert "--projection orders" in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM orders",
        "CREATE VIEW v AS SELECT id FROM orders",
        "INSERT INTO a SELECT id FROM orders",
        "GRANT SELECT ON orders TO reader",
        "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()",
        "DROP TRIGGER t ON orders",
        "CREATE POLICY p ON orders USING (true)",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "COMMENT ON TABLE orders IS 'x'",
        "ALTER TABLE other.orders ADD x int",
        'ALTER TABLE "Orders" ADD x int',
        "WITH orders AS (SELECT 1 AS x) INSERT INTO a SELECT x FROM orders",
    ],
)
def test_reading_and_what_a_swap_carries_over_are_fine(sql):
    assert lines(RULE, sql, AROUND) == []


def test_without_projections_there_is_nothing_to_say():
    assert lines(RULE, "DROP TABLE orders") == []
