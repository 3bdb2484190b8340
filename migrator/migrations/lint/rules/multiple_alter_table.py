"""Several ALTER TABLE of one table that could be one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pglast import enums

from migrator.migrations.lint.locks import alter_mode
from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import show
from migrator.migrations.lint.walk import (
    Transaction,
    alters_table,
    created,
    key,
    same,
    transactions,
)

AT = enums.AlterTableType
_ALONE = {AT.AT_AttachPartition, AT.AT_DetachPartition, AT.AT_DetachPartitionFinalize}
_ALONE |= {AT.AT_ValidateConstraint}


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made = created(script)
    plain = script.revision is None and not script.in_transaction
    for transaction in [script.statements] if plain else transactions(script):
        yield from _within(transaction, made)


def _within(transaction: Transaction, made: frozenset[str]) -> Iterator[Finding]:
    before: Any = None
    for statement in transaction:
        node: Any = statement.node
        if not _may_join(node) or key(qualified(node.relation)) in made:
            before = None
            continue
        table = qualified(node.relation)
        if before is not None and _join(before, node):
            node = copy.copy(before)
            node.cmds = (*before.cmds, *statement.node.cmds)  # type: ignore[attr-defined]
            yield RULE.finding(
                f"one more ALTER TABLE of {table}: one statement makes one pass over the table",
                show(node),
                statement=statement,
                table=table,
            )
        before = node


def _join(one: Any, other: Any) -> bool:
    """Whether one statement can do both: same table, same lock, no column that the first adds."""
    added = {each.def_.colname for each in one.cmds if each.subtype == AT.AT_AddColumn}
    return (
        same(qualified(one.relation), qualified(other.relation))
        and max(map(alter_mode, one.cmds)) == max(map(alter_mode, other.cmds))
        and not any(each.name in added for each in other.cmds)
    )


def _may_join(node: Any) -> bool:
    return alters_table(node) and not any(each.subtype in _ALONE for each in node.cmds or ())


RULE = Rule(
    "multiple-alter-table", "lock", "notice", "Several ALTER TABLE that could be one", check
)
