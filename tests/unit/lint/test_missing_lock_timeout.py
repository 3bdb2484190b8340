"""A plain file sets its lock_timeout before it locks."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.rules.missing_lock_timeout import RULE
from tests.unit.lint.checking import findings, lines

SET = "SET lock_timeout = '5s';"


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a ADD x int",
        "CREATE INDEX ON a (x)",
        "TRUNCATE a",
        "LOCK TABLE a IN ACCESS SHARE MODE",
        "SET statement_timeout = '5s'; ALTER TABLE a ADD x int",
        "SET lock_timeout = 0; ALTER TABLE a ADD x int",
        f"{SET} RESET lock_timeout; ALTER TABLE a ADD x int",
        f"ALTER TABLE a ADD x int; {SET}",
        "DROP INDEX i",
    ],
)
def test_a_lock_without_it_is_found(sql):
    assert lines(RULE, sql) == [1]


@pytest.mark.parametrize(
    "sql",
    [
        f"{SET} ALTER TABLE a ADD x int",
        "SET LOCAL Lock_Timeout = 500; ALTER TABLE a ADD x int",
        "SELECT set_config('lock_timeout', '5s', true); ALTER TABLE a ADD x int",
        "CREATE TABLE a (x int); ALTER TABLE a ADD y int",
        "CREATE INDEX CONCURRENTLY i ON a (x)",
        "REINDEX INDEX CONCURRENTLY i",
        "ALTER TABLE p DETACH PARTITION c CONCURRENTLY",
        "UPDATE a SET x = 1 WHERE id = 1",
        "VACUUM a",
        "SELECT 1",
    ],
)
def test_with_it_or_without_a_lock_it_is_fine(sql):
    assert lines(RULE, sql) == []


def test_what_the_runner_sends_has_the_runners():
    assert lines(RULE, "ALTER TABLE a ADD x int", revision="0004") == []
    assert lines(RULE, "ALTER TABLE a ADD x int", Surroundings(lock_timeout_ms=500)) == []


def test_only_the_first_statement_is_named():
    assert lines(RULE, "ALTER TABLE a ADD x int;\nALTER TABLE b ADD x int") == [1]


def test_the_rewrite_is_local_only_within_a_transaction():
    (within,) = findings(RULE, "ALTER TABLE a ADD x int")
    (outside,) = findings(RULE, "ALTER TABLE a ADD x int", in_transaction=False)
    assert within.rewrite.startswith("SET LOCAL lock_timeout")
    assert outside.rewrite.startswith("SET lock_timeout")
