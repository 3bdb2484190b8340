"""An enum value is used in a later transaction."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.enum_value_used_at_once import RULE
from tests.unit.lint.checking import findings, lines

ADD = "ALTER TYPE s.state ADD VALUE 'gone' AFTER 'sent';\n"


@pytest.mark.parametrize(
    "use",
    [
        "UPDATE a SET x = 'gone' WHERE id = 1",
        "INSERT INTO a VALUES ('gone')",
        "ALTER TABLE a ALTER x SET DEFAULT 'gone'",
        "ALTER TABLE a ADD COLUMN y s.state DEFAULT 'gone'::s.state",
        "CREATE TABLE b (x s.state CHECK (x <> 'gone'))",
        "CREATE INDEX ON a (x) WHERE x = 'gone'",
        "SELECT x FROM a WHERE x = 'gone'",
    ],
)
def test_a_use_in_the_same_transaction_is_found(use):
    (found,) = findings(RULE, ADD + use)
    assert (found.line, found.severity) == (2, "error")
    assert "ALTER TYPE s.state ADD VALUE IF NOT EXISTS 'gone' AFTER 'sent';" in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        ADD,
        ADD + "UPDATE a SET x = 'sent' WHERE id = 1",
        ADD + "COMMIT; UPDATE a SET x = 'gone' WHERE id = 1",
        ADD + "COMMENT ON TABLE a IS 'gone'",
        "CREATE TYPE s.state AS ENUM ('sent');" + ADD + "SELECT 'gone'::s.state",
        "ALTER TYPE s.state RENAME VALUE 'sent' TO 'gone'; SELECT 'gone'::s.state",
        "UPDATE a SET x = 'gone';" + ADD,
    ],
)
def test_later_other_or_of_a_new_type_is_fine(sql):
    assert lines(RULE, sql) == []


def test_outside_a_transaction_it_may_be_used():
    assert lines(RULE, ADD + "SELECT 'gone'::s.state", in_transaction=False) == []


def test_a_type_of_the_same_name_in_another_schema_is_another():
    sql = "CREATE TYPE other.state AS ENUM ('sent');\n" + ADD + "SELECT 'gone'::s.state"
    assert lines(RULE, sql) == [3]
