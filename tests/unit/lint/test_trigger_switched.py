"""Triggers are not switched for everybody."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.trigger_switched import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    ("action", "done"),
    [
        ("DISABLE TRIGGER t", "disabled"),
        ("DISABLE TRIGGER ALL", "disabled"),
        ("DISABLE TRIGGER USER", "disabled"),
        ("ENABLE TRIGGER t", "enabled"),
        ("ENABLE ALWAYS TRIGGER t", "enabled"),
        ("ENABLE REPLICA TRIGGER t", "enabled"),
        ("ENABLE TRIGGER ALL", "enabled"),
        ("ADD x int, ENABLE TRIGGER USER", "enabled"),
    ],
)
def test_every_form_is_found(action, done):
    (found,) = findings(RULE, f"ALTER TABLE a {action}")
    assert f"a trigger of a is {done}" in found.message


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a DISABLE RULE r",
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE a (x int); ALTER TABLE a DISABLE TRIGGER ALL",
    ],
)
def test_other_switches_and_new_tables_are_fine(sql):
    assert lines(RULE, sql) == []
