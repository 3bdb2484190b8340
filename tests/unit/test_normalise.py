from __future__ import annotations

import ast

import pytest

from migrator.migrations.normalise import normalised, revision_hash, sql_hash

REVISION = '''
"""Add a note."""
from alembic import op

def upgrade():
    op.execute("CREATE TABLE t (a int, b text DEFAULT 'x  -- y')")
    op.execute(f"CREATE INDEX ON {table} (a)")
'''
LICENCED = "# Copyright 2026\n# All rights reserved\n" + REVISION


def hashed(source: str) -> str:
    return revision_hash(ast.parse(source))


def edited(old: str, new: str) -> str:
    assert old in REVISION
    return REVISION.replace(old, new)


@pytest.mark.parametrize(
    "same",
    [
        LICENCED,
        edited('"CREATE TABLE t (', '"-- what for\\nCREATE TABLE t (  '),
        edited('"CREATE TABLE t (a int, b', '"/* licence */ create table T(a INT , b'),
        edited("'x  -- y')\"", "'x  -- y'); -- done\""),
        edited('f"CREATE INDEX ON', 'f"/* quick */ create  index on'),
        edited("{table} (a)", "{table}(a); -- the {{index}}"),
        edited("    op.execute(f", "    # why\n\n    op.execute(\n        f"),
    ],
)
def test_comments_and_layout_in_sql_change_nothing(same):
    assert hashed(same) == hashed(REVISION)


@pytest.mark.parametrize(
    "other",
    [
        edited("a int", "a bigint"),
        edited("'x  -- y'", "'x -- y'"),
        edited("TABLE t", 'TABLE \\"T\\"'),
        edited("{table}", "{other}"),
        edited("{table}", "{table}_old"),
        edited("{table}", "t"),
        edited("op.execute(f", "op.run(f"),
    ],
)
def test_what_the_sql_does_counts(other):
    assert hashed(other) != hashed(REVISION)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 'a  -- b'", "x = 'a -- b'"),
        ("op.add_column(comment='update  it')", "op.add_column(comment='update it')"),
        ("x = 'DROP TABLE a' + name", "x = 'DROP TABLE a ' + name"),
        ("x = 'DROP TABLE a_{}'.format(n)", "x = 'DROP TABLE a_ {}'.format(n)"),
        ("x = SQL('DROP TABLE a_{}')", "x = SQL('DROP TABLE a_ {}')"),
        ("x = f'DROP TABLE a_{n}'", "x = f'DROP TABLE a_ {n}'"),
    ],
)
def test_what_is_no_whole_sql_counts_as_it_is_written(one, other):
    assert hashed(one) != hashed(other)


def test_sql_that_the_scanner_does_not_take_counts_as_it_is_written():
    assert hashed('x = "SELECT \'a -- b"') != hashed('x = "SELECT \'a  -- b"')
    assert normalised(" SELECT 'a ") == "SELECT 'a"


def test_the_hash_of_a_known_revision_never_changes():
    """Ledgers hold it, so a newer Python, parser or migrator must come to the same."""
    assert hashed(REVISION) == ("64a7bed06481ccdd7b3908739de93791c038a899df0c397394005d79a92462aa")


def test_statements_are_hashed_apart_and_in_their_order():
    assert sql_hash(["SELECT 1; -- x", "SELECT 2"]) == sql_hash(["select  1", "SELECT 2;"])
    assert sql_hash(["SELECT 1", "SELECT 2"]) != sql_hash(["SELECT 2", "SELECT 1"])
    assert sql_hash(["SELECT 1", "SELECT 2"]) != sql_hash(["SELECT 1 SELECT 2"])


def test_a_functions_body_counts_with_its_comments():
    """PostgreSQL keeps them in its catalog."""
    assert normalised("DO $$ -- a\n$$") != normalised("DO $$ -- b\n$$")
