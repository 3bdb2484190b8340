"""Lint one source: our own rules and squawk's, each hazard once, weighed, without what is ignored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from migrator.migrations import phase
from migrator.migrations.hazards import HAZARDS
from migrator.migrations.lint import ignores, registry, squawk
from migrator.migrations.lint.ignores import Ignored
from migrator.migrations.lint.model import Finding, Surroundings
from migrator.migrations.lint.parse import NotSQL
from migrator.migrations.lint.source import Source
from migrator.migrations.lint.squawk_rules import RULES
from migrator.migrations.lint.weight import weigh

SYNTAX = "syntax-error"
NOT_KNOWN = "sql-not-known"
_CAPTURE = "-- or let a copy of the database answer: migrator lint --capture"
_UNPROVEN = "-- up takes an expand revision of this kind with --allow not-provable only"
_ORDER = {"error": 0, "warning": 1, "notice": 2}


@dataclass(frozen=True)
class Linted:
    """What was found in one source, in the order of its lines, and what was ignored."""

    source: Source
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]


def rules() -> frozenset[str]:
    """Every rule id that a finding may have and an ignore may name."""
    return frozenset({*registry.own(), *RULES, *HAZARDS, SYNTAX})


def lint(source: Source, around: Surroundings, *, pg_version: str | None = None) -> Linted:
    """Run every rule over the source; reads no database.

    Raises:
        MigratorError: squawk is not installed, or fails.
    """
    script = source.script
    own = list(_own(source, around))
    theirs = squawk.findings(source, around, pg_version=pg_version)
    weighed = (
        weigh(found, script, around) for found in [*own, *without_doubles(source, own, theirs)]
    )
    kept, ignored = ignores.apply(source, [each for each in weighed if each], rules())
    return Linted(source, tuple(sorted(kept, key=_order)), tuple(ignored))


def without_doubles(
    source: Source, own: Iterable[Finding], theirs: Iterable[Finding]
) -> list[Finding]:
    """Squawk's findings but for those whose hazard an own rule has named on the same statement.

    What the list of phases says of a statement stands for all that squawk says of the kind.
    """
    said = {(found.rule, _statement(source, found)) for found in own}
    proven = {at for rule, at in said if rule in HAZARDS and HAZARDS[rule].breaks}
    return [
        found
        for found in theirs
        if not any((rule, _statement(source, found)) in said for rule in RULES[found.rule].own)
        and not (found.category == "compat" and _statement(source, found) in proven)
    ]


def _statement(source: Source, finding: Finding) -> int | None:
    statement = source.statement(finding.line)
    return statement.line if statement else finding.line


def _own(source: Source, around: Surroundings) -> Iterator[Finding]:
    if source.problem is not None:
        yield _syntax_error(source.problem)
    for rule in registry.own().values():
        for found in rule.check(source.script, around):
            if found.rule != NOT_KNOWN:
                yield found
            elif source.problem is None:
                unproven = f"\n{_UNPROVEN}" if source.script.phase == "expand" else ""
                yield replace(found, rewrite=f"{found.rewrite}\n{_CAPTURE}{unproven}")

    if source.script.analysable and source.script.phase == "expand":
        yield from phase.findings(source.script)


def _syntax_error(problem: NotSQL) -> Finding:
    return Finding(
        SYNTAX,
        "error",
        "transaction",
        f"PostgreSQL refuses it: {problem.said}",
        "-- correct it; psql's own commands (\\copy, \\i) are no SQL",
        problem.line,
    )


def _order(finding: Finding) -> tuple[int, int, str]:
    return (finding.line or 0, _ORDER[finding.severity], finding.rule)
