"""A revision that nobody could read beforehand is said."""

from __future__ import annotations

from migrator.migrations.lint.rules.sql_not_known import RULE
from tests.unit.lint.checking import findings


def test_it_is_found_with_the_reason():
    (found,) = findings(RULE, "", analysable=False, why_not="it reads the list of tenants")
    assert "(it reads the list of tenants)" in found.message
    assert found.line is None


def test_without_a_reason_the_message_is_whole():
    (found,) = findings(RULE, "", analysable=False)
    assert "only when it runs, so no rule has seen it" in found.message


def test_what_is_known_is_fine():
    assert findings(RULE, "SELECT 1") == []
