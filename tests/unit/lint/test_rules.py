"""What every rule owes: its page, and a page whose examples are true."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

from migrator.migrations.lint import rules
from migrator.migrations.lint.model import Finding, Rule, Surroundings
from tests.unit.lint.checking import NOWHERE, findings

ROOT = Path(__file__).parents[3]
RULES: dict[str, Rule] = {
    module.name: importlib.import_module(f"{rules.__name__}.{module.name}").RULE
    for module in pkgutil.iter_modules(rules.__path__)
}
AROUND = Surroundings(
    projections=frozenset({"orders"}),
    append_only=frozenset({"events"}),
    lock_timeout_ms=500,
    statement_timeout_ms=60_000,
)
# Revisions are told apart by the first; the others say how the SQL is sent.
NEXT, OUTSIDE, UNKNOWN = "-- next revision", "-- outside a transaction", "-- not analysable"
PLAIN = ("transaction-control", "if-not-exists-over-invalid-index", "missing-lock-timeout")
PLAIN += ("missing-statement-timeout",)
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)


def page(rule: Rule) -> str:
    return (ROOT / "docs" / "lint" / f"{rule.id}.md").read_text(encoding="utf-8")


def example(rule: Rule, heading: str) -> str:
    found = re.search(rf"^## {heading}$\n+```sql\n(.*?)^```$", page(rule), re.DOTALL | re.MULTILINE)
    assert found, f"no SQL under {heading}"
    return found[1]


def linted(rule: Rule, sql: str) -> list[Finding]:
    """What the rule says of the page's example, revision by revision."""
    found: list[Finding] = []
    for revision in sql.split(NEXT):
        up, _, rollback = revision.partition("-- rollback script\n")
        known: dict[str, Any] = {
            "revision": None if rule.id in PLAIN else "0004",
            "in_transaction": OUTSIDE not in up and "BEGIN;" not in up,
            "analysable": UNKNOWN not in up,
            "rollback_script": rollback or "-- loses: nothing\nSELECT 1;",
        }
        found += findings(rule, up, NOWHERE if rule.id in PLAIN else AROUND, **known)
    return found


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_named_as_its_module_and_has_a_test_module(name):
    assert RULES[name].id == name.replace("_", "-")
    assert (Path(__file__).parent / f"test_{name}.py").exists()


@each_rule
def test_the_page_says_title_severity_and_category(rule):
    said = f"{rule.title}. {rule.severity.capitalize()}, category `{rule.category}`."
    assert page(rule).startswith(f"# {rule.id}\n\n{said}\n")
    assert 15 <= len(page(rule).splitlines()) <= 45


@each_rule
def test_the_pages_example_is_found(rule):
    assert linted(rule, example(rule, "Found"))


@each_rule
def test_the_pages_safe_example_is_not_found(rule):
    assert linted(rule, example(rule, "Safe")) == []


@each_rule
def test_the_pages_ignore_names_the_rule_and_a_reason(rule):
    assert re.fullmatch(
        rf"-- migrator:ignore {rule.id} \S.*\n", example(rule, "Ignore it where it is right")
    )


def test_the_overview_lists_every_rule_as_it_is():
    overview = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[`[a-z-]+`\]\(lint/([a-z-]+).md\) \| (\w+) \| (\w+) \|", overview, re.MULTILINE
    )
    ordered = sorted(RULES.values(), key=lambda rule: (rule.category, rule.id))
    assert rows == [(rule.id, rule.category, rule.severity) for rule in ordered]


def test_no_page_is_of_a_rule_that_is_not_there():
    pages = {path.stem for path in (ROOT / "docs" / "lint").glob("*.md")}
    assert {rule.id for rule in RULES.values()} <= pages


@each_rule
def test_a_rule_says_nothing_of_an_empty_script(rule):
    assert findings(rule, "", AROUND) == []


@each_rule
def test_a_rule_leaves_the_script_as_it_found_it(rule):
    """Rules run one after another on the same syntax trees."""
    from pglast.stream import RawStream

    from migrator.migrations.lint.parse import parse

    script = dataclasses.replace(parse(example(rule, "Found")), revision="0004")
    before = [RawStream()(each.node) for each in script.statements]
    list(rule.check(script, AROUND))
    assert [RawStream()(each.node) for each in script.statements] == before
