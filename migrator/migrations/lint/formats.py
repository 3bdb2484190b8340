"""Findings as people, GitHub and code scanners read them; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from migrator.migrations.hazards import HAZARDS
from migrator.migrations.lint import registry
from migrator.migrations.lint.linter import Linted
from migrator.migrations.lint.model import Finding
from migrator.migrations.lint.squawk_rules import RULES
from migrator.version import __version__

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "notice": "note"}


def text(linted: Iterable[Linted]) -> str:
    """One block a finding: where, how bad, which rule, what; then the safe rewrite, indented."""
    return "\n".join(
        "\n".join([_headline(each, finding), *_indented(finding.rewrite)])
        for each in linted
        for finding in each.findings
    )


def _headline(linted: Linted, finding: Finding) -> str:
    place = linted.source.place(finding.line)
    where = linted.source.file if place is None else f"{linted.source.file}:{place}"
    return f"{where}: {finding.severity} {finding.rule}: {finding.message}"


def _indented(rewrite: str) -> list[str]:
    return [f"    {line}".rstrip() for line in rewrite.strip("\n").splitlines()]


def entries(linted: Iterable[Linted]) -> list[dict[str, Any]]:
    """Every finding as plain JSON values; an ignored one has the reason in `ignored`."""
    found = []
    for each in linted:
        found += [_entry(each, finding, None) for finding in each.findings]
        found += [_entry(each, ignored.finding, ignored.reason) for ignored in each.ignored]
    return found


def _entry(linted: Linted, finding: Finding, ignored: str | None) -> dict[str, Any]:
    return {
        "file": linted.source.file,
        "line": linted.source.place(finding.line),
        "revision": linted.source.script.revision,
        "rule": finding.rule,
        "severity": finding.severity,
        "category": finding.category,
        "table": finding.table,
        "message": finding.message,
        "rewrite": finding.rewrite,
        "sql": _sql(linted, finding),
        "doc": page(finding.rule),
        "ignored": ignored,
    }


def _sql(linted: Linted, finding: Finding) -> str | None:
    statement = linted.source.statement(finding.line)
    return statement.text if statement else None


def page(rule: str) -> str:
    """The page of the docs that explains the rule."""
    if rule in HAZARDS:
        return "docs/phases.md"
    return f"docs/lint/{rule}.md" if rule in registry.own() else "docs/lint.md"


# GitHub


def github(linted: Iterable[Linted]) -> str:
    """Workflow commands, which GitHub shows as annotations on the lines of the diff."""
    return "\n".join(_command(each, finding) for each in linted for finding in each.findings)


def _command(linted: Linted, finding: Finding) -> str:
    place = linted.source.place(finding.line)
    values = {"file": linted.source.file, "line": place, "title": finding.rule}
    properties = ",".join(
        f"{name}={_escaped(str(value), ':', ',')}"
        for name, value in values.items()
        if value is not None
    )
    message = f"{finding.message}\n\n{finding.rewrite}"
    return f"::{finding.severity} {properties}::{_escaped(message)}"


def _escaped(value: str, *also: str) -> str:
    for each in ("%", "\r", "\n", *also):
        value = value.replace(each, f"%{ord(each):02X}")
    return value


# SARIF


def sarif(linted: Iterable[Linted]) -> dict[str, Any]:
    """One SARIF 2.1.0 log with one run; ignored findings are in it as suppressed."""
    linted = list(linted)
    results = []
    for each in linted:
        results += [_result(each, finding, None) for finding in each.findings]
        results += [_result(each, ignored.finding, ignored.reason) for ignored in each.ignored]
    ids = sorted({result["ruleId"] for result in results})
    for result in results:
        result["ruleIndex"] = ids.index(result["ruleId"])
    driver = {
        "name": "migrator",
        "semanticVersion": __version__,
        "rules": [_described(rule) for rule in ids],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _described(rule: str) -> dict[str, Any]:
    own = registry.own().get(rule)
    title = own.title if own else re.sub("-", " ", rule).capitalize()
    where = page(rule)
    described = {
        "id": rule,
        "shortDescription": {"text": title},
        "help": {"text": f"See {where}.", "markdown": f"See [{where}]({where})."},
    }
    severity = own.severity if own else RULES[rule].severity if rule in RULES else None
    if severity is not None:
        described["defaultConfiguration"] = {"level": _LEVELS[severity]}
    return described


def _result(linted: Linted, finding: Finding, ignored: str | None) -> dict[str, Any]:
    place = linted.source.place(finding.line)
    location: dict[str, Any] = {
        "artifactLocation": {"uri": _uri(linted.source.file), "uriBaseId": "%SRCROOT%"}
    }
    if place is not None:
        location["region"] = {"startLine": place}
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message}\n\n{finding.rewrite}"},
        "locations": [{"physicalLocation": location}],
    }
    if ignored is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": ignored}]
    return result


def _uri(file: str) -> str:
    from urllib.parse import quote

    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
