"""Comments that switch a finding off."""

import pytest

from migrator.migrations import history
from migrator.migrations.lint import linter
from migrator.migrations.lint.model import Surroundings
from migrator.migrations.lint.source import from_revision, from_sql
from migrator.settings import Settings
from tests import revisions

INDEX = "require-concurrent-index-creation"


def errors(source):
    linted = linter.lint(source, Surroundings(lock_timeout_ms=500, statement_timeout_ms=60_000))
    return [(each.rule, each.line) for each in linted.findings if each.severity == "error"], linted


def in_sql(sql):
    return errors(from_sql(sql, "x.sql"))


def test_a_comment_on_a_line_of_its_own_is_for_the_next_statement():
    found, linted = in_sql(
        f"-- migrator:ignore {INDEX} it is empty\nCREATE INDEX i ON t (a);\nCREATE INDEX j ON t (b);"
    )
    assert found == [(INDEX, 3)]
    assert [(each.finding.line, each.reason) for each in linted.ignored] == [(2, "it is empty")]


def test_a_comment_after_a_statement_is_for_that_statement():
    found, _ = in_sql(
        f"CREATE INDEX i ON t (a); -- migrator:ignore {INDEX} it is empty\nCREATE INDEX j ON t (b);"
    )
    assert found == [(INDEX, 2)]


def test_a_comment_at_the_top_before_a_blank_line_is_for_the_file():
    found, _ = in_sql(
        f"-- migrator:ignore {INDEX} all are empty\n\n"
        "CREATE INDEX i ON t (a);\nCREATE INDEX j ON t (b);"
    )
    assert found == []


def test_a_comment_ignores_no_other_rule():
    found, _ = in_sql("-- migrator:ignore ban-drop-table it is empty\nCREATE INDEX i ON t (a);")
    assert found == [(INDEX, 2)]


def test_a_comment_without_a_reason_ignores_nothing_and_is_an_error():
    found, _ = in_sql(f"-- migrator:ignore {INDEX}\nCREATE INDEX i ON t (a);")
    assert found == [("ignore-without-reason", 1), (INDEX, 2)]


def test_a_comment_that_matches_nothing_is_a_notice():
    _, linted = in_sql(f"-- migrator:ignore {INDEX} it is empty\nSELECT 1;")
    (finding,) = linted.findings
    assert (finding.rule, finding.severity, finding.line) == ("unused-ignore", "notice", 1)
    assert f"nothing here is found by {INDEX}" in finding.message


def test_a_comment_with_a_misspelt_rule_says_the_right_one():
    _, linted = in_sql("-- migrator:ignore ban-drop-tabel it is empty\nDROP TABLE t;")
    (notice,) = [each for each in linted.findings if each.rule == "unused-ignore"]
    assert "did you mean ban-drop-table?" in notice.message


def test_a_text_that_only_looks_like_a_comment_is_none():
    found, _ = in_sql(f"SELECT '-- migrator:ignore {INDEX}';")
    assert found == []


@pytest.fixture
def in_python(tmp_path):
    def lint(upgrade, head='phase = "expand"'):
        path = revisions.write(tmp_path, "0001", upgrade, head=head)
        files = history.read(Settings(root=tmp_path))
        _, linted = errors(from_revision(files, files["0001"], "0001_x.py"))
        lines = path.read_text().splitlines()
        placed = [
            (each.rule, lines[linted.source.place(each.line) - 1].strip())
            for each in linted.findings
            if each.severity == "error"
        ]
        return placed, linted

    return lint


ONE = 'op.create_index("i", "t", ["a"])'
TWO = 'op.create_index("j", "t", ["b"])'


def test_a_finding_in_a_revision_is_at_the_line_that_sends_it(in_python):
    found, _ = in_python(f"pass\n{ONE}")
    assert found == [(INDEX, ONE)]


def test_in_a_revision_a_comment_is_for_the_next_statement(in_python):
    found, linted = in_python(f"# migrator:ignore {INDEX} it is empty\n{ONE}\n{TWO}")
    assert found == [(INDEX, TWO)]
    assert [each.reason for each in linted.ignored] == ["it is empty"]


def test_in_a_revision_a_comment_after_code_is_for_that_statement(in_python):
    found, _ = in_python(f"{ONE}  # migrator:ignore {INDEX} it is empty\n{TWO}")
    assert found == [(INDEX, TWO)]


def test_in_a_revision_a_comment_is_for_a_statement_of_several_lines(in_python):
    several = 'op.create_index(\n    "i",\n    "t",\n    ["a"],\n)'
    found, _ = in_python(f"# migrator:ignore {INDEX} it is empty\n{several}\n{TWO}")
    assert found == [(INDEX, TWO)]


def test_in_a_revision_a_comment_outside_functions_is_for_all_of_it(in_python):
    found, _ = in_python(
        f"{ONE}\n{TWO}", head=f'# migrator:ignore {INDEX} both are empty\nphase = "expand"'
    )
    assert found == []


def test_a_comment_inside_the_sql_of_a_revision_counts(in_python):
    found, _ = in_python(
        f'op.execute("""-- migrator:ignore {INDEX} it is empty\nCREATE INDEX i ON t (a)""")\n{TWO}'
    )
    assert found == [(INDEX, TWO)]
