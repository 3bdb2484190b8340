"""The event store only grows."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.append_only_broken import RULE
from tests.unit.lint.checking import findings, lines

AROUND = Surroundings(append_only=frozenset({"public.events"}))
TRIGGER = "CREATE TRIGGER t {} ON events FOR EACH ROW EXECUTE FUNCTION f()"


@pytest.mark.parametrize(
    ("sql", "done"),
    [
        ("UPDATE events SET x = 1 WHERE id = 1", "changes events"),
        ("DELETE FROM ONLY events WHERE id = 1", "deletes events"),
        ("WITH d AS (DELETE FROM events RETURNING id) SELECT id FROM d", "deletes events"),
        ("INSERT INTO events VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1", "on conflict"),
        (
            "MERGE INTO events USING a ON a.id = events.id WHEN MATCHED THEN UPDATE SET x = 1",
            "changes events",
        ),
        ("TRUNCATE a, events", "empties it"),
        ("DROP TABLE IF EXISTS public.events", "drops it"),
        ("ALTER TABLE events DROP COLUMN x", "drops a column"),
        ("ALTER TABLE events ADD y int, ALTER x TYPE bigint", "changes a column's type"),
        ("ALTER TABLE events RENAME TO old", "renames"),
        ("ALTER TABLE events RENAME x TO y", "renames"),
        ("ALTER TABLE events SET UNLOGGED", "lets a crash"),
        ("ALTER TABLE events DISABLE TRIGGER ALL", "disables"),
        ("DROP TRIGGER no_update ON events", "drops a trigger"),
        (TRIGGER.format("BEFORE INSERT OR UPDATE"), "swallow"),
        ("CREATE RULE r AS ON INSERT TO events DO INSTEAD NOTHING", "swallow"),
        (
            "ALTER TABLE events ADD FOREIGN KEY (c) REFERENCES customers ON DELETE CASCADE",
            "another table",
        ),
        ("ALTER TABLE events ADD c int REFERENCES customers ON DELETE SET NULL", "another table"),
        ("GRANT INSERT, UPDATE ON events TO app", "lets a role"),
        ("GRANT ALL ON TABLE events TO app", "lets a role"),
    ],
)
def test_whatever_is_no_append_is_found(sql, done):
    (found,) = findings(RULE, sql, AROUND)
    assert done in found.message
    assert found.severity == "error"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO events VALUES (1)",
        "INSERT INTO events SELECT x FROM a ON CONFLICT DO NOTHING",
        "MERGE INTO events USING a ON a.id = events.id WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "ALTER TABLE events ADD COLUMN y int",
        "ALTER TABLE events ADD CONSTRAINT k CHECK (x > 0) NOT VALID",
        "ALTER TABLE events ADD FOREIGN KEY (c) REFERENCES customers NOT VALID",
        "ALTER TABLE events RENAME CONSTRAINT k TO l",
        "CREATE INDEX CONCURRENTLY i ON events (x)",
        TRIGGER.format("BEFORE UPDATE OR DELETE"),
        TRIGGER.format("AFTER INSERT"),
        "GRANT SELECT, INSERT ON events TO app",
        "REVOKE UPDATE ON events FROM app",
        "UPDATE a SET x = 1 FROM events WHERE events.id = a.id",
        "DROP TABLE a",
        "DROP INDEX i",
        "UPDATE other.events SET x = 1",
    ],
)
def test_an_append_and_what_guards_it_are_fine(sql):
    assert lines(RULE, sql, AROUND) == []


def test_without_an_event_store_there_is_nothing_to_say():
    assert lines(RULE, "DELETE FROM events") == []
