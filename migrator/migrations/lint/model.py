"""What rules are given and what they say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pglast import ast

Severity = Literal["error", "warning", "notice"]
Category = Literal[
    "lock", "transaction", "timeout", "compat", "rollback", "data", "projection", "style"
]


@dataclass(frozen=True)
class Statement:
    """One statement as the revision sends it; `line` counts from 1 in the script's text."""

    node: ast.Node
    text: str
    line: int


@dataclass(frozen=True)
class Script:
    """What one revision (or SQL file) sends, in order.

    `in_transaction` says that all of it is one transaction, which is how a revision runs unless it
    uses autocommit_block. `analysable` is False where its SQL could not be known beforehand.
    """

    statements: tuple[Statement, ...]
    in_transaction: bool = True
    revision: str | None = None
    path: str | None = None
    phase: str | None = None
    rollback_script: str | None = None
    irreversible: str | None = None
    analysable: bool = True
    why_not: str | None = None

    @cached_property
    def created_tables(self) -> frozenset[str]:
        """Tables that this script itself creates: nobody can be waiting for those."""
        return frozenset(
            qualified(statement.node.relation)
            for statement in self.statements
            if isinstance(statement.node, ast.CreateStmt)
        )


@dataclass(frozen=True)
class Surroundings:
    """What is known beside the script; everything is optional.

    `rows` is the estimated row count of each table by its name as `qualified` gives it;
    `projections` are the tables that migrator builds from the log; `append_only` are event-store
    tables, which only ever grow; `indexes` are the columns of each table's indexes, and `not_null` its
    columns that take no NULL, `column_types` all its columns as format_type() writes their types,
    `sizes_bytes` its main file; the timeouts are those that the runner sets for each statement.
    """

    rows: Mapping[str, float] = field(default_factory=dict)
    projections: frozenset[str] = frozenset()
    append_only: frozenset[str] = frozenset()
    indexes: Mapping[str, frozenset[tuple[str, ...]]] = field(default_factory=dict)
    invalid_indexes: frozenset[str] = frozenset()
    not_null: Mapping[str, frozenset[str]] = field(default_factory=dict)
    column_types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sizes_bytes: Mapping[str, int] = field(default_factory=dict)
    lock_timeout_ms: int | None = None
    statement_timeout_ms: int | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that a rule has to say about one statement; `rewrite` is the safe way to do it."""

    rule: str
    severity: Severity
    category: Category
    message: str
    rewrite: str
    line: int | None = None
    table: str | None = None


Check = Callable[[Script, Surroundings], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A rule: its id (kebab-case, the module's name with hyphens), and how it checks a script.

    `severity` is what it says where a table's size is not known; the linter weighs it by the real
    size when a database is at hand.
    """

    id: str
    category: Category
    severity: Severity
    title: str
    check: Check

    def finding(
        self,
        message: str,
        rewrite: str,
        *,
        statement: Statement | None = None,
        table: str | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule; without a severity of its own it has the rule's."""
        line = statement.line if statement else None
        severity = severity or self.severity
        return Finding(self.id, severity, self.category, message, rewrite, line, table)


def qualified(relation: ast.RangeVar | None) -> str:
    """The table's name as it is compared: with its schema where one is written, else alone."""
    if relation is None or relation.relname is None:
        return ""
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else relation.relname
