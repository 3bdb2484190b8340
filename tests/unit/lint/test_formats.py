"""Findings as people, GitHub and code scanners read them."""

import json

import pytest

from migrator.migrations.lint import formats
from migrator.migrations.lint.ignores import Ignored
from migrator.migrations.lint.linter import Linted
from migrator.migrations.lint.model import Finding
from migrator.migrations.lint.source import from_sql

FINDING = Finding("some-rule", "error", "lock", "50% is\nheld: bad", "SAFE 1;\nSAFE 2;", 2, "t")
IGNORED = Finding("other-rule", "notice", "style", "Meh", "BETTER;", 1)


@pytest.fixture
def linted():
    source = from_sql("SELECT 1;\nDROP TABLE t;\n", "a,b/c:d é.sql")
    return [Linted(source, (FINDING,), (Ignored(IGNORED, "old"),))]


def test_text_says_where_how_bad_which_rule_and_the_rewrite_indented(linted):
    assert formats.text(linted) == (
        "a,b/c:d é.sql:2: error some-rule: 50% is\nheld: bad\n    SAFE 1;\n    SAFE 2;"
    )


def test_github_gets_a_workflow_command_with_everything_escaped(linted):
    assert formats.github(linted) == (
        "::error file=a%2Cb/c%3Ad é.sql,line=2,title=some-rule"
        "::50%25 is%0Aheld: bad%0A%0ASAFE 1;%0ASAFE 2;"
    )


def test_json_has_the_statement_and_what_was_ignored_and_why(linted):
    found, ignored = json.loads(json.dumps(formats.entries(linted)))
    assert found == {
        "file": "a,b/c:d é.sql",
        "line": 2,
        "revision": None,
        "rule": "some-rule",
        "severity": "error",
        "category": "lock",
        "table": "t",
        "message": "50% is\nheld: bad",
        "rewrite": "SAFE 1;\nSAFE 2;",
        "sql": "DROP TABLE t",
        "doc": "docs/lint.md",
        "ignored": None,
    }
    assert (ignored["rule"], ignored["ignored"]) == ("other-rule", "old")


def test_sarif_has_one_run_with_rules_results_and_suppressions(linted):
    document = json.loads(json.dumps(formats.sarif(linted)))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["other-rule", "some-rule"]
    assert run["tool"]["driver"]["rules"][0]["help"]["text"] == "See docs/lint.md."
    first, second = run["results"]
    assert first == {
        "ruleId": "some-rule",
        "ruleIndex": 1,
        "level": "error",
        "message": {"text": "50% is\nheld: bad\n\nSAFE 1;\nSAFE 2;"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {
                        "uri": "a%2Cb/c%3Ad%20%C3%A9.sql",
                        "uriBaseId": "%SRCROOT%",
                    },
                    "region": {"startLine": 2},
                }
            }
        ],
    }
    assert second["level"] == "note"
    assert second["suppressions"] == [{"kind": "inSource", "justification": "old"}]


def test_a_finding_without_a_line_is_one_of_the_file(linted):
    source = linted[0].source
    nowhere = [Linted(source, (Finding("r", "error", "rollback", "none", "write it"),), ())]
    assert formats.text(nowhere).startswith("a,b/c:d é.sql: error r: none")
    assert "line=" not in formats.github(nowhere)
    (result,) = formats.sarif(nowhere)["runs"][0]["results"]
    assert "region" not in result["locations"][0]["physicalLocation"]
