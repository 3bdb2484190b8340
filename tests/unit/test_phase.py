from __future__ import annotations

import pytest

from migrator.migrations import phase
from migrator.migrations.hazards import HAZARDS
from migrator.migrations.lint.model import Script
from migrator.migrations.lint.parse import parse


def breaking(sql: str) -> list[tuple[str, str]]:
    return [
        (found.hazard.id, found.subject) for found in phase.found(parse(sql)) if found.hazard.breaks
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a int); ALTER TABLE t ADD CHECK (a > 0)",
        "CREATE TABLE t (a int); ALTER TABLE t RENAME TO u; DROP TABLE u",
        "CREATE TABLE s.t (a int); ALTER TABLE s.t RENAME TO u; TRUNCATE s.u",
        "CREATE SCHEMA s; CREATE TABLE IF NOT EXISTS s.t (a int); ALTER TABLE s.t DROP a",
        "CREATE INDEX i ON t (a); DROP INDEX i",
        "CREATE FUNCTION f(int, OUT b int) LANGUAGE sql AS ''; DROP FUNCTION f(int)",
        "CREATE VIEW v AS SELECT 1; CREATE OR REPLACE VIEW v AS SELECT 2",
        "CREATE TABLE t AS SELECT 1 AS a; UPDATE t SET a = 2",
        "SELECT 1 AS a INTO t; DELETE FROM t",
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX i; ALTER TABLE t DROP CONSTRAINT c",
        "ALTER TABLE t ADD c int DEFAULT 1; ALTER TABLE t ALTER c TYPE bigint, ALTER c DROP DEFAULT",
        """CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f();
           DROP TRIGGER g ON t""",
    ],
)
def test_what_the_revision_created_itself_it_may_change(sql):
    assert breaking(sql) == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE t ADD CHECK (a > 0); CREATE TABLE t (a int)", "add-check"),
        ("CREATE TABLE IF NOT EXISTS t (a int); ALTER TABLE t DROP a", "drop-column"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS a int; ALTER TABLE t DROP a", "drop-column"),
        ("CREATE TABLE t (a int); SET search_path = s; TRUNCATE t", "truncate"),
        (
            "CREATE TABLE t (a int); SELECT set_config('search_path', 's', false); TRUNCATE t",
            "truncate",
        ),
        ("CREATE TABLE s.t (a int); TRUNCATE t", "truncate"),
        ("CREATE TABLE t (a int); ALTER TABLE t RENAME TO u; TRUNCATE t", "truncate"),
        ("CREATE FUNCTION f(int) LANGUAGE sql AS ''; DROP FUNCTION f(text)", "drop-function"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1; DROP VIEW v", "drop-view"),
        ("ALTER TABLE t ADD c int; ALTER TABLE u DROP c", "drop-column"),
        ("CREATE SCHEMA t; ALTER TABLE t DROP CONSTRAINT c", "drop-constraint"),
    ],
)
def test_what_was_there_before_is_not_exempt_by_a_name_alike(sql, rule):
    assert rule in [found for found, _ in breaking(sql)]


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ $$",
        "CALL p()",
        "SELECT p()",
        "EXECUTE p",
        "PREPARE p AS SELECT 1",
        "LOAD 'x'",
        "COPY t FROM PROGRAM 'x'",
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
        "CREATE CAST (a AS b) WITHOUT FUNCTION AS IMPLICIT",
        "ALTER TABLE t OF pair",
        "EXPLAIN ANALYZE SELECT p()",
        "SELECT app.count(1)",
    ],
)
def test_what_cannot_be_known_is_not_proven(sql):
    assert [rule for rule, _ in breaking(sql)] == ["not-provable"]


def test_sql_that_is_not_known_beforehand_is_not_proven():
    (found,) = phase.found(Script((), analysable=False, why_not="it asks for rows"))
    assert (found.hazard.id, found.subject) == ("not-provable", "it asks for rows")


def test_each_part_of_a_statement_is_named_once():
    sql = "ALTER TABLE t DROP a, DROP b; DROP TABLE u, s.v"
    assert breaking(sql) == [
        ("drop-column", "t.a"),
        ("drop-column", "t.b"),
        ("drop-table", "u"),
        ("drop-table", "s.v"),
    ]


@pytest.mark.parametrize(
    ("declared", "severity"), [("expand", "error"), (None, "warning"), ("contract", None)]
)
def test_the_linter_is_told_by_the_phase(declared, severity):
    script = parse("SELECT 1;\nDROP TABLE t", phase=declared)
    found = list(phase.findings(script))
    assert [(f.rule, f.severity, f.category, f.line) for f in found] == (
        [("drop-table", severity, "compat", 2)] if severity else []
    )


def test_a_notice_stays_one_in_an_expand_revision():
    (found,) = phase.findings(parse("ALTER TABLE t ADD a int", phase="expand"))
    assert (found.rule, found.severity) == ("add-column", "notice")


@pytest.mark.parametrize("hazard", HAZARDS.values(), ids=HAZARDS)
def test_an_entry_says_what_why_and_the_way(hazard):
    assert hazard.what
    assert hazard.why
    assert not hazard.why.endswith(".")
    assert hazard.way.endswith(".")
