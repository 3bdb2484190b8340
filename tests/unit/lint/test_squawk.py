"""Squawk's report in our words."""

import os
import subprocess

import pytest

from migrator.migrations.lint import squawk, squawk_rules
from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.source import from_sql

MANAGED = Surroundings(lock_timeout_ms=500, statement_timeout_ms=60_000)


def found(sql, around=MANAGED, **known):
    return squawk.findings(from_sql(sql, "x.sql"), around, **{"pg_version": None, **known})


def rules(sql, around=MANAGED, **known):
    return [finding.rule for finding in found(sql, around, **known)]


def test_squawk_knows_every_rule_of_the_table():
    """An unknown name would make squawk refuse to run at all."""
    command = [
        squawk._program(),
        f"--config={os.devnull}",
        f"--exclude={','.join(squawk_rules.RULES)}",
    ]
    ran = subprocess.run(command, input=b"SELECT 1;", capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


CASES = [
    ("adding-field-with-default", "ALTER TABLE t ADD COLUMN a uuid DEFAULT random_uuid();"),
    (
        "adding-foreign-key-constraint",
        "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (id);",
    ),
    ("adding-not-nullable-field", "ALTER TABLE t ALTER COLUMN a SET NOT NULL;"),
    ("adding-required-field", "ALTER TABLE t ADD COLUMN a bigint NOT NULL;"),
    ("adding-serial-primary-key-field", "ALTER TABLE t ADD PRIMARY KEY (id);"),
    (
        "ban-alter-domain-with-add-constraint",
        "ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0);",
    ),
    ("ban-char-field", "CREATE TABLE t (a char(3));"),
    (
        "ban-concurrent-index-creation-in-transaction",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a); SELECT 1;",
    ),
    ("ban-create-domain-with-constraint", "CREATE DOMAIN d AS int CHECK (value > 0);"),
    ("ban-disable-trigger", "ALTER TABLE t DISABLE TRIGGER g;"),
    ("ban-drop-column", "ALTER TABLE t DROP COLUMN a;"),
    ("ban-drop-constraint", "ALTER TABLE t DROP CONSTRAINT c;"),
    ("ban-drop-database", "DROP DATABASE d;"),
    ("ban-drop-default", "ALTER TABLE t ALTER COLUMN a DROP DEFAULT;"),
    ("ban-drop-domain", "DROP DOMAIN d;"),
    ("ban-drop-extension", "DROP EXTENSION e;"),
    ("ban-drop-function", "DROP FUNCTION f;"),
    ("ban-drop-generated-expression", "ALTER TABLE t ALTER COLUMN a DROP EXPRESSION;"),
    ("ban-drop-not-null", "ALTER TABLE t ALTER COLUMN a DROP NOT NULL;"),
    ("ban-drop-schema", "DROP SCHEMA s;"),
    ("ban-drop-sequence", "DROP SEQUENCE s;"),
    ("ban-drop-table", "DROP TABLE t;"),
    ("ban-drop-trigger", "DROP TRIGGER g ON t;"),
    ("ban-drop-type", "DROP TYPE y;"),
    ("ban-drop-view", "DROP VIEW v;"),
    ("ban-duplicate-column-assignments", "UPDATE t SET a = 1, a = 2 WHERE b;"),
    ("ban-set-schema", "ALTER TABLE t SET SCHEMA s;"),
    ("ban-truncate-cascade", "TRUNCATE t CASCADE;"),
    ("ban-uncommitted-transaction", "-- migrator: autocommit\nBEGIN; SELECT 1;"),
    ("changing-column-type", "ALTER TABLE t ALTER COLUMN a TYPE bigint;"),
    ("constraint-missing-not-valid", "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0);"),
    ("disallowed-unique-constraint", "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a);"),
    ("identifier-too-long", f"ALTER TABLE t ADD COLUMN {'a' * 64} bigint;"),
    ("prefer-bigint-over-int", "CREATE TABLE t (a int);"),
    ("prefer-bigint-over-smallint", "CREATE TABLE t (a smallint);"),
    ("prefer-identity", "CREATE TABLE t (a bigserial);"),
    (
        "prefer-robust-stmts",
        "-- migrator: autocommit\nSELECT 1; CREATE INDEX CONCURRENTLY i ON t (a);",
    ),
    ("prefer-text-field", "CREATE TABLE t (a varchar(3));"),
    ("prefer-timestamp-tz", "CREATE TABLE t (a timestamp);"),
    ("renaming-column", "ALTER TABLE t RENAME COLUMN a TO b;"),
    ("renaming-object", "ALTER TYPE y RENAME TO z;"),
    ("renaming-table", "ALTER TABLE t RENAME TO u;"),
    ("require-concurrent-index-creation", "CREATE INDEX i ON t (a);"),
    ("require-concurrent-index-deletion", "DROP INDEX i;"),
    ("require-concurrent-partition-detach", "ALTER TABLE t DETACH PARTITION p;"),
    ("require-concurrent-reindex", "REINDEX INDEX i;"),
    ("require-enum-value-ordering", "ALTER TYPE y ADD VALUE 'v';"),
    ("transaction-nesting", "BEGIN; SELECT 1; COMMIT;"),
]


@pytest.mark.parametrize(("rule", "sql"), CASES, ids=[rule for rule, _ in CASES])
def test_a_hazard_is_found_by_its_rule_with_our_category_and_a_rewrite(rule, sql):
    (finding,) = [each for each in found(sql) if each.rule == rule]
    known = squawk_rules.RULES[rule]
    assert finding.category == known.category
    assert finding.severity == known.severity
    assert finding.rewrite.strip()
    assert "{" not in finding.rewrite


def test_repack_is_asked_for_where_the_server_has_it():
    assert rules("VACUUM FULL t;", pg_version="19") == ["prefer-repack"]
    assert rules("VACUUM FULL t;", pg_version="18") == []


def test_every_rule_of_the_table_is_tried():
    tried = {rule for rule, _ in CASES} | {"prefer-repack"}
    assert tried == set(squawk_rules.RULES)


def test_repeatable_statements_are_asked_for_only_outside_a_transaction():
    sql = "SELECT 1; ALTER TABLE t ADD COLUMN a bigint;"
    assert "prefer-robust-stmts" not in rules(sql)


def test_one_hazard_that_squawk_says_twice_is_said_once():
    assert rules("ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (id);") == [
        "adding-foreign-key-constraint"
    ]


def test_a_finding_names_the_line_and_the_table():
    (finding,) = found('-- é\n\nCREATE INDEX i\n  ON s."T" (a);')
    assert (finding.line, finding.table) == (3, "s.T")
    assert 'ON s."T"' in finding.rewrite


def test_a_configuration_of_squawks_own_is_not_read(tmp_path, monkeypatch):
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["ban-drop-table"]')
    monkeypatch.chdir(tmp_path)
    assert "ban-drop-table" in rules("-- migrator: autocommit\nDROP TABLE t;")


FREE = [
    ("character varying(10)", "varchar(20)"),
    ("character varying(10)", "varchar"),
    ("character varying(10)", "text"),
    ("text", "varchar"),
    ("numeric(10,2)", "numeric(12,2)"),
    ("numeric(10,2)", "numeric"),
    ("numeric(10)", "numeric(12)"),
    ("bit varying(3)", "varbit(4)"),
    ("timestamp(3) with time zone", "timestamptz"),
    ("cidr", "inet"),
]
REWRITES = [
    ("character varying(20)", "varchar(10)"),
    ("character varying", "varchar(10)"),
    ("text", "varchar(10)"),
    ("numeric(10,2)", "numeric(12,3)"),
    ("numeric", "numeric(12,3)"),
    ("numeric(12,2)", "numeric(10,2)"),
    ("timestamp without time zone", "timestamptz"),
    ("timestamp with time zone", "timestamptz(3)"),
    ("integer", "bigint"),
    ("integer", "text"),
    ("inet", "cidr"),
]


def changing(old, new, using=""):
    around = Surroundings(column_types={"t": {"a": old}})
    return [
        (finding.rule, finding.severity)
        for finding in found(f"ALTER TABLE t ALTER COLUMN a TYPE {new}{using};", around)
        if finding.rule == "changing-column-type"
    ]


@pytest.mark.parametrize(("old", "new"), FREE)
def test_a_type_that_only_widens_is_free(old, new):
    assert changing(old, new) == []


@pytest.mark.parametrize(("old", "new"), REWRITES)
def test_a_type_that_rewrites_the_table_is_an_error(old, new):
    assert changing(old, new) == [("changing-column-type", "error")]


def test_using_the_same_cast_stays_free_and_any_other_does_not():
    assert changing("character varying(10)", "text", " USING a::text") == []
    assert changing("character varying(10)", "text", " USING lower(a)") != []


def test_another_collation_is_not_free():
    assert changing("character varying(10)", 'text COLLATE "C"') != []


def test_a_type_that_may_only_widen_is_a_warning_where_the_old_one_is_not_known():
    (finding,) = found("ALTER TABLE t ALTER COLUMN a TYPE text;")
    assert finding.severity == "warning"
    assert "free where it only widens" in finding.message


def test_the_type_that_the_script_itself_gave_counts():
    sql = "ALTER TABLE t ADD COLUMN a varchar(5); ALTER TABLE t ALTER COLUMN a TYPE text;"
    assert "changing-column-type" not in rules(sql)
