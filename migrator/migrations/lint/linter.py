"""Lint one source: our own rules and squawk's, each hazard once, weighed, without what is ignored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from migrator.migrations.lint import ignores, registry, squawk
from migrator.migrations.lint.ignores import Ignored
from migrator.migrations.lint.model import Finding, Surroundings
from migrator.migrations.lint.source import Source
from migrator.migrations.lint.squawk_rules import RULES
from migrator.migrations.lint.weight import weigh

NOT_ANALYSABLE = "not-analysable"
_ORDER = {"error": 0, "warning": 1, "notice": 2}


@dataclass(frozen=True)
class Linted:
    """What was found in one source, in the order of its lines, and what was ignored."""

    source: Source
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]


def rules() -> frozenset[str]:
    """Every rule id that a finding may have and an ignore may name."""
    return frozenset({*registry.own(), *RULES, NOT_ANALYSABLE})


def lint(source: Source, around: Surroundings, *, pg_version: str | None = None) -> Linted:
    """Run every rule over the source; reads no database.

    Raises:
        MigratorError: squawk is not installed, or fails.
    """
    script = source.script
    own = [found for rule in registry.own().values() for found in rule.check(script, around)]
    if not script.analysable and all(found.rule != NOT_ANALYSABLE for found in own):
        own.append(_not_analysable(source))
    theirs = squawk.findings(source, around, pg_version=pg_version)
    weighed = (
        weigh(found, script, around) for found in [*own, *without_doubles(source, own, theirs)]
    )
    kept, ignored = ignores.apply(source, [each for each in weighed if each], rules())
    return Linted(source, tuple(sorted(kept, key=_order)), tuple(ignored))


def without_doubles(
    source: Source, own: Iterable[Finding], theirs: Iterable[Finding]
) -> list[Finding]:
    """Squawk's findings but for those whose hazard an own rule has named on the same statement."""
    said = {(found.rule, _statement(source, found)) for found in own}
    return [
        found
        for found in theirs
        if not any((rule, _statement(source, found)) in said for rule in RULES[found.rule].own)
    ]


def _statement(source: Source, finding: Finding) -> int | None:
    statement = source.statement(finding.line)
    return statement.line if statement else finding.line


def _not_analysable(source: Source) -> Finding:
    return Finding(
        NOT_ANALYSABLE,
        "warning" if source.script.revision else "error",
        "style",
        f"{source.name} cannot be analysed beforehand: {source.script.why_not}",
        "-- let the SQL not depend on the database's answers, or show what it sends there:\n"
        f"-- migrator lint --capture {source.script.revision or ''}".rstrip(),
    )


def _order(finding: Finding) -> tuple[int, int, str]:
    return (finding.line or 0, _ORDER[finding.severity], finding.rule)
