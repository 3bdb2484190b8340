"""A rollback script says what it loses."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.rollback_loses_data import RULE
from tests.unit.lint.checking import findings


def found(up, script, **known):
    known = {"revision": "0004", "rollback_script": script, **known}
    return [(each.table, each.severity) for each in findings(RULE, up, **known)]


@pytest.mark.parametrize(
    ("script", "losses"),
    [
        ("DROP TABLE a", [("a", "warning")]),
        ("DROP TABLE IF EXISTS a, s.b CASCADE", [("a", "warning"), ("s.b", "warning")]),
        ("DROP SCHEMA s CASCADE", [("s", "warning")]),
        ("ALTER TABLE a DROP COLUMN x, DROP COLUMN y", [("a", "warning"), ("a", "warning")]),
        ("TRUNCATE a", [("a", "warning")]),
        ("DELETE FROM a WHERE x = 1", [("a", "warning")]),
    ],
)
def test_a_loss_of_what_was_there_before_is_a_warning(script, losses):
    assert found("SELECT 1", script) == losses


@pytest.mark.parametrize(
    ("up", "script"),
    [
        ("CREATE TABLE a (x int)", "DROP TABLE public.a"),
        ("CREATE TABLE a AS SELECT 1", "DROP TABLE a"),
        ("ALTER TABLE s.a ADD COLUMN x int", "ALTER TABLE s.a DROP COLUMN IF EXISTS x"),
        ("CREATE TABLE a (x int)", "DELETE FROM a"),
    ],
)
def test_a_loss_of_what_was_written_since_is_a_notice(up, script):
    assert [severity for _, severity in found(up, script)] == ["notice"]


def test_what_a_revision_adds_is_unknown_where_its_sql_is():
    assert found("", "DROP TABLE a", analysable=False) == [("a", "notice")]


@pytest.mark.parametrize(
    "script",
    [
        "-- loses: all of a\nDROP TABLE a",
        "DROP TABLE a; --  Loses: all of a",
        "DROP INDEX i; DROP VIEW v; ALTER TABLE a DROP CONSTRAINT k",
        "UPDATE a SET x = 1",
        "not sql",
        "-- nothing",
    ],
)
def test_declared_or_without_loss_it_is_fine(script):
    assert found("SELECT 1", script) == []


@pytest.mark.parametrize("script", ["-- loses:\nDROP TABLE a", "-- loses nothing\nDROP TABLE a"])
def test_a_declaration_says_what(script):
    assert len(found("SELECT 1", script)) == 1


def test_without_a_script_there_is_nothing_to_say():
    assert found("SELECT 1", None) == []


def test_the_rewrite_declares_it():
    (each,) = findings(
        RULE, "ALTER TABLE a ADD x int", revision="1", rollback_script="ALTER TABLE a DROP x"
    )
    assert each.rewrite == (
        "-- loses: a.x, what was written there since the revision was applied\n"
        "ALTER TABLE a DROP COLUMN x;"
    )
