"""Comments that switch a finding off, each with the reason why; pure.

In SQL `-- migrator:ignore RULE reason`, in a revision's Python `# migrator:ignore RULE reason`. One that
follows code on its line is for that statement; one on a line of its own is for the next statement; one
at the top of the file (in SQL before a blank line, in Python outside every function) is for all of it.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import pglast
from pglast import parser

from migrator.migrations.lint.model import Finding
from migrator.migrations.lint.source import Source

UNREASONED = "ignore-without-reason"
UNUSED = "unused-ignore"
_IGNORE = re.compile(r"^(?:--|#)[ \t]*migrator:[ \t]*ignore\b[ \t]*:?[ \t]*(\S*)[ \t]*(.*)$")


@dataclass(frozen=True)
class Ignore:
    """One comment. `statements` are the first lines of what it covers, None is the whole file."""

    rule: str
    reason: str
    line: int | None
    statements: frozenset[int] | None


@dataclass(frozen=True)
class Ignored:
    """A finding that a comment has switched off, and why."""

    finding: Finding
    reason: str


def apply(
    source: Source, findings: Iterable[Finding], rules: Collection[str]
) -> tuple[list[Finding], list[Ignored]]:
    """Take away what the source's comments ignore; add what is wrong with the comments themselves."""
    found = list(read(source))
    kept: list[Finding] = []
    ignored: list[Ignored] = []
    used: set[Ignore] = set()
    for finding in findings:
        by = [each for each in found if each.reason and _covers(source, each, finding)]
        used |= set(by)
        if by:
            ignored.append(Ignored(finding, by[0].reason))
        else:
            kept.append(finding)
    kept += [_unreasoned(each) for each in found if not each.reason]
    kept += [_unused(each, rules) for each in found if each.reason and each not in used]
    return kept, ignored


def read(source: Source) -> Iterator[Ignore]:
    """Every such comment of the source, in its file and in the SQL that a revision sends."""
    if source.code is not None:
        yield from _in_python(source, source.code)
    if source.sql:
        yield from _in_sql(source)


def _covers(source: Source, ignore: Ignore, finding: Finding) -> bool:
    if ignore.rule != finding.rule:
        return False
    if ignore.statements is None:
        return True
    statement = source.statement(finding.line)
    return statement is not None and statement.line in ignore.statements


def _parts(comment: str) -> tuple[str, str] | None:
    matched = _IGNORE.match(comment.strip())
    return (matched[1], matched[2].strip()) if matched else None


# SQL


def _in_sql(source: Source) -> Iterator[Ignore]:
    try:
        tokens = parser.scan(source.sql)
    except pglast.parser.ParseError:
        return
    first = min((each.line for each in source.script.statements), default=None)
    for token in tokens:
        if token.name != "SQL_COMMENT":
            continue
        parts = _parts(source.sql[token.start : token.end + 1])
        if parts is None:
            continue
        line = source.sql.count("\n", 0, token.start) + 1
        before = source.sql[: token.start].rpartition("\n")[2].strip()
        if before:
            covered = source.statement(line)
            statements = frozenset({covered.line} if covered else ())
        elif source.code is None and _at_the_top(source.sql, line, first):
            yield Ignore(*parts, line, None)
            continue
        else:
            following = [each.line for each in source.script.statements if each.line > line]
            statements = frozenset(following[:1])
        yield Ignore(*parts, source.place_near(line), statements)


def _at_the_top(sql: str, line: int, first: int | None) -> bool:
    """Whether a blank line stands between the comment and the first statement."""
    if first is not None and line > first:
        return False
    between = sql.splitlines()[line : first - 1 if first else None]
    return first is None or any(not each.strip() for each in between)


# Python


def _in_python(source: Source, code: str) -> Iterator[Ignore]:
    functions = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef)
    ]
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        parts = _parts(token.string) if token.type == tokenize.COMMENT else None
        if parts is None:
            continue
        line = token.start[0]
        if not any(begin <= line <= end for begin, end in functions):
            yield Ignore(*parts, line, None)
            continue
        own_line = not token.line[: token.start[1]].strip()
        begin, end = _statement_at(code, line, own_line=own_line)
        covered = {sql for sql, place in source.places.items() if begin <= place <= end}
        yield Ignore(*parts, line, frozenset(covered))


def _statement_at(code: str, line: int, *, own_line: bool) -> tuple[int, int]:
    """The lines of the statement that a comment is for: the next, or the one it follows."""
    spans = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.stmt)
    ]
    if own_line:
        inside = [span for span in spans if span[0] > line]
        return min(inside, key=lambda span: (span[0], -span[1]), default=(0, 0))
    around = [span for span in spans if span[0] <= line <= span[1]]
    return max(around, key=lambda span: (span[0], -span[1]), default=(0, 0))


# What is wrong with a comment


def _unreasoned(ignore: Ignore) -> Finding:
    what = f"ignore of {ignore.rule}" if ignore.rule else "ignore"
    return Finding(
        UNREASONED,
        "error",
        "style",
        f"this {what} has no reason, so it ignores nothing",
        f"migrator:ignore {ignore.rule or 'RULE'} why it is safe here",
        ignore.line,
    )


def _unused(ignore: Ignore, rules: Collection[str]) -> Finding:
    message = f"nothing here is found by {ignore.rule}, which this comment ignores"
    if ignore.rule not in rules:
        near = difflib.get_close_matches(ignore.rule, sorted(rules), n=1)
        message = f"there is no rule {ignore.rule}" + (f"; did you mean {near[0]}?" if near else "")
    rewrite = "-- remove the comment, or correct the rule's name (docs/lint.md)"
    return Finding(UNUSED, "notice", "style", message, rewrite, ignore.line)
