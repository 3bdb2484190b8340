"""Every revision has a script that could be run."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.rollback_script_missing import RULE
from tests.unit.lint.checking import findings


def said(script, **known):
    known = {"revision": "0004", "rollback_script": script, **known}
    return [each.message for each in findings(RULE, "SELECT 1", **known)]


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (None, "revision 0004 has no rollback script"),
        ("", "holds no statement yet"),
        ("-- TODO\n/* DROP TABLE a; */\n", "holds no statement yet"),
        ("DROP TABEL a;", "does not parse"),
        ("BEGIN; DROP TABLE a; COMMIT;", "holds BEGIN"),
        ("DROP INDEX CONCURRENTLY i;", "CONCURRENTLY"),
    ],
)
def test_one_that_cannot_be_run_is_found(script, what):
    (message,) = said(script)
    assert what in message


@pytest.mark.parametrize(
    ("script", "known"),
    [
        ("DROP TABLE a;", {}),
        ("-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS i;", {}),
        (None, {"irreversible": "the rows are gone"}),
        (None, {"revision": None}),
    ],
)
def test_one_that_can_and_where_none_is_needed_is_fine(script, known):
    assert said(script, **known) == []
