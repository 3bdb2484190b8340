"""The comparison with other linters' verdicts."""

import pytest

from bench import lint
from migrator.migrations.lint import registry
from migrator.migrations.lint.squawk_rules import RULES

CASES = "file\ttool\texpected_rule\tverdict\tpg_version\tassume_in_txn\tcategory\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sql").mkdir()

    def write(*cases):
        lines = []
        for number, (rule, verdict, sql) in enumerate(cases):
            (tmp_path / "sql" / f"{number}.sql").write_text(sql)
            lines.append(f"{number}.sql\tsquawk\t{rule}\t{verdict}\t\t1\tcompat\n")
        (tmp_path / "cases.tsv").write_text(CASES + "".join(lines))
        return tmp_path

    return write


def run(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lint", "--data", str(folder)])
    return lint.main(), capsys.readouterr().out


def test_where_all_verdicts_agree_the_bar_is_reached(folder, monkeypatch, capsys):
    cases = folder(
        ("ban-drop-table", "unsafe", "DROP TABLE t;"), ("ban-drop-table", "safe", "SELECT 1;")
    )
    code, said = run(cases, monkeypatch, capsys)
    assert (code, "reached: 100.0% of 2 verdicts agree" in said) == (0, True)


def test_a_missed_case_and_a_false_error_are_listed_and_the_bar_is_not_reached(
    folder, monkeypatch, capsys
):
    cases = folder(
        ("ban-drop-table", "unsafe", "SELECT 1;"), ("ban-drop-table", "safe", "DROP TABLE t;")
    )
    code, said = run(cases, monkeypatch, capsys)
    assert code == 1
    assert "0.sql: unsafe by ban-drop-table; here: nothing" in said
    assert "1.sql: safe by ban-drop-table; here: ban-drop-table (error)" in said
    assert "NOT reached" in said


def test_without_the_cases_it_is_skipped_with_the_reason(tmp_path, monkeypatch, capsys):
    code, said = run(tmp_path, monkeypatch, capsys)
    assert code == 0
    assert said.startswith("skipped: there is no")


def test_a_part_of_a_file_is_a_migration_of_its_own(folder):
    cases = folder(("E6", "unsafe", "-- 1.sql\nSELECT 1;\n-- 2.sql\nSELECT 2;\n"))
    (case,) = lint.cases(cases)
    texts = [s.script.statements[0].text for s in lint.sources(cases, case) if s.script.statements]
    assert texts == ["SELECT 1", "SELECT 2"]


def test_the_table_names_only_rules_that_exist():
    named = {rule for ours in lint.SAME.values() for rule in ours}
    assert named <= {*registry.own(), *RULES}


def test_the_bar_holds():
    if not (lint.DATA / "cases.tsv").is_file():
        pytest.skip(f"there is no {lint.DATA}: the cases are not part of the project")
    verdicts = lint.counted([lint.judge(lint.DATA, case) for case in lint.cases(lint.DATA)])
    assert lint.share(verdicts) >= lint.BAR, [v for v in verdicts if not v.agrees]
    assert not [verdict for verdict in verdicts if verdict.is_false_error]
