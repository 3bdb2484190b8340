"""ATTACH PARTITION that must scan the table first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums
from pglast.stream import RawStream

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings, qualified
from migrator.migrations.lint.rewriting import Raw, fill, show
from migrator.migrations.lint.walk import Action, actions, created, key

AT, Constraint = enums.AlterTableType, enums.ConstrType
_REWRITE = """-- first; partition_key stands for the column that {parent} is partitioned by:
ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({proof}) NOT VALID;
-- in a later revision:
ALTER TABLE {table} VALIDATE CONSTRAINT {name};
-- then ATTACH finds it proven and scans nothing:
{attach}"""


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    made, proven = created(script), set()
    for action in actions(script):
        command = action.command
        if command.subtype == AT.AT_ValidateConstraint or _checks_at_once(command):
            proven.add(key(action.table))
        elif command.subtype == AT.AT_AttachPartition:
            partition = key(qualified(command.def_.name))
            if partition not in made | proven:
                yield _finding(action)


def _checks_at_once(command: object) -> bool:
    added = getattr(command, "def_", None)
    return (
        isinstance(added, ast.Constraint)
        and added.contype == Constraint.CONSTR_CHECK
        and not added.skip_validation
    )


def _finding(action: Action) -> Finding:
    part = action.command.def_
    name = qualified(part.name)
    rewrite = fill(
        _REWRITE,
        table=part.name,
        parent=action.relation,
        name=f"{part.name.relname}_bound",
        attach=Raw(show(action.statement.node)),
        proof=Raw(_proof(part.bound)),
    )
    return RULE.finding(
        f"attaching {name} scans it under ACCESS EXCLUSIVE, unless a validated CHECK already "
        "proves its bound; none is in this script",
        rewrite,
        statement=action.statement,
        table=name,
    )


def _proof(bound: Any) -> str:
    """The condition that proves the bound; one key column, as nearly all partitions have."""
    known = ["partition_key IS NOT NULL"]
    if bound.listdatums:
        values = ", ".join(RawStream()(each) for each in bound.listdatums)
        known.append(f"partition_key IN ({values})")
    elif len(bound.lowerdatums or ()) == 1:
        ends = ((">=", bound.lowerdatums[0]), ("<", bound.upperdatums[0]))
        known += [
            f"partition_key {sign} {RawStream()(end)}"
            for sign, end in ends
            if not isinstance(end, ast.ColumnRef)  # MINVALUE, MAXVALUE
        ]
    return " AND ".join(known)


RULE = Rule(
    "attach-partition-without-check",
    "lock",
    "warning",
    "A partition attached without a CHECK that proves its bound",
    check,
)
