"""A trigger on a table that stands is seen."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.trigger_created import RULE
from tests.unit.lint.checking import findings, lines

TRIGGER = "CREATE {} TRIGGER t AFTER INSERT ON s.a FOR EACH ROW EXECUTE FUNCTION f()"


@pytest.mark.parametrize("kind", ["", "OR REPLACE", "CONSTRAINT"])
def test_every_kind_of_trigger_is_found(kind):
    (found,) = findings(RULE, TRIGGER.format(kind))
    assert (found.table, found.severity) == ("s.a", "warning")


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE s.a (x int);" + TRIGGER.format(""), "DROP TRIGGER t ON s.a"]
)
def test_on_a_new_table_it_is_fine(sql):
    assert lines(RULE, sql) == []
