"""Squawk's findings on the SQL of a source, in our words and without what it is known to get wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from migrator.errors import MigratorError
from migrator.migrations.lint import widening
from migrator.migrations.lint.locks import locks
from migrator.migrations.lint.model import Finding, Statement, Surroundings
from migrator.migrations.lint.rewriting import name_of
from migrator.migrations.lint.safe_way import safe_way
from migrator.migrations.lint.source import Source
from migrator.migrations.lint.squawk_rules import (
    IN_TRANSACTION,
    RULES,
    SAID_BETTER_BY,
    Known,
)


@dataclass(frozen=True)
class Said:
    """One line of squawk's report; `line` counts from 1."""

    rule: str
    message: str
    help: str | None
    line: int


def findings(source: Source, around: Surroundings, *, pg_version: str | None) -> list[Finding]:
    """Run squawk on the source's SQL and translate what it says.

    Raises:
        MigratorError: squawk is not installed, or fails.
    """
    if not source.script.statements:
        return []
    said = report(
        source.sql,
        in_transaction=source.script.in_transaction,
        pg_version=pg_version,
    )
    found = [_finding(source, around, each) for each in _once(source, said)]
    return [each for each in found if each is not None]


def report(sql: str, *, in_transaction: bool, pg_version: str | None = None) -> list[Said]:
    """What squawk says of the SQL, with the rules off that the runner makes moot.

    Raises:
        MigratorError: squawk is not installed, or fails.
    """
    command = [_program(), "--reporter=json", f"--config={os.devnull}"]
    command.append("--include=" + ",".join(name for name, rule in RULES.items() if rule.opt_in))
    if in_transaction:
        command += ["--assume-in-transaction", "--exclude=" + ",".join(sorted(IN_TRANSACTION))]
    if pg_version is not None:
        command.append(f"--pg-version={pg_version}")
    ran = subprocess.run(command, input=sql.encode(), capture_output=True, check=False)
    try:
        lines = json.loads(ran.stdout or b"[]")
    except ValueError:
        lines = None
    if lines is None or (ran.returncode != 0 and not lines):
        raise MigratorError(
            f"squawk fails (exit {ran.returncode}): {ran.stderr.decode().strip()}",
            expected="its report as JSON",
            next_step="squawk --version; reinstall squawk-cli in the version that migrator requires",
        )
    return [_said(line) for line in lines if line["rule_name"] in RULES]


def _program() -> str:
    own = shutil.which("squawk", path=sysconfig.get_path("scripts"))
    found = own or shutil.which("squawk")
    if found is None:
        raise MigratorError(
            "the program squawk is not there",
            expected="squawk-cli, which is installed with migrator",
            next_step="pip install squawk-cli",
        )
    return found


def _said(line: dict[str, Any]) -> Said:
    return Said(line["rule_name"], line["message"], line["help"], line["line"] + 1)


def _once(source: Source, said: Iterable[Said]) -> list[Said]:
    """Each hazard of a statement once."""
    said = list(said)
    rules: dict[int, set[str]] = {}
    for each in said:
        rules.setdefault(_line(source, each), set()).add(each.rule)
    kept: dict[tuple[str, int], Said] = {}
    for each in said:
        at = _line(source, each)
        if not rules[at] & SAID_BETTER_BY.get(each.rule, frozenset()):
            kept.setdefault((each.rule, at), each)
    return list(kept.values())


def _line(source: Source, said: Said) -> int:
    statement = source.statement(said.line)
    return statement.line if statement else said.line


def _finding(source: Source, around: Surroundings, said: Said) -> Finding | None:
    known, statement = RULES[said.rule], source.statement(said.line)
    table = _table(statement)
    severity = known.severity
    message = said.message
    if said.rule == "changing-column-type" and statement is not None:
        judged = widening.judge(source.script, statement, around)
        if judged == "free":
            return None
        if judged == "unknown":
            severity = "warning"
            message += " It is free where it only widens the type that the column has."
    return Finding(
        said.rule,
        severity,
        known.category,
        message,
        _rewrite(known, said, statement, table),
        said.line,
        table,
    )


def _rewrite(known: Known, said: Said, statement: Statement | None, table: str | None) -> str:
    own = safe_way(said.rule, statement.node) if statement else None
    if own is not None:
        return own
    if known.rewrite.startswith("--") and known.category == "style" and said.help:
        return f"-- {said.help}"
    return known.rewrite.replace("{t}", name_of(table) if table else "t")


def _table(statement: Statement | None) -> str | None:
    """The table that the statement locks hardest."""
    if statement is None:
        return None
    tables = [each for each in locks(statement.node) if each.kind == "table"]
    return max(tables, key=lambda each: each.mode).table if tables else None
