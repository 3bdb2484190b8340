"""SQL becomes statements, each with its own text and line."""

from __future__ import annotations

import pytest
from pglast import ast

from migrator.migrations.lint.parse import NotSQL, parse

SCRIPT = """-- héllo; not a statement
select 'é;';  /* c ; */
 -- lock_timeout comes later
alter table "Ünï"
    -- in between
    add column x int /* last */
; ;
create function f() returns int language sql begin atomic select 1; select 2; end; select 3
-- tail
"""


def test_a_statement_has_its_own_text_and_line():
    found = [(each.line, each.text) for each in parse(SCRIPT).statements]
    assert found == [
        (2, "select 'é;'"),
        (4, 'alter table "Ünï"\n    -- in between\n    add column x int'),
        (8, "create function f() returns int language sql begin atomic select 1; select 2; end"),
        (8, "select 3"),
    ]


def test_a_statement_has_its_node():
    assert isinstance(parse(SCRIPT).statements[1].node, ast.AlterTableStmt)


@pytest.mark.parametrize("sql", ["", "  \n", "-- nothing\n", "/* a; */ ;;\n"])
def test_comments_alone_hold_no_statement(sql):
    assert parse(sql).statements == ()


def test_an_unended_comment_is_named():
    with pytest.raises(NotSQL, match="unterminated"):
        parse("select 1; /* and")


def test_a_dollar_quoted_body_is_one_statement():
    (statement,) = parse("DO $$ BEGIN; -- ;\nEND $$;").statements
    assert statement.text == "DO $$ BEGIN; -- ;\nEND $$"


def test_a_syntax_error_has_its_line_and_postgresqls_words():
    with pytest.raises(NotSQL, match='syntax error at or near "selec" in line 3') as caught:
        parse("select 1;\n\n selec 2;")
    assert caught.value.line == 3


def test_what_is_known_beside_the_sql_is_kept():
    script = parse("select 1", revision="0004", in_transaction=False)
    assert (script.revision, script.in_transaction) == ("0004", False)


def test_windows_line_ends_count_once():
    assert [each.line for each in parse("select 1;\r\n\r\nselect 2;\r\n").statements] == [1, 3]
