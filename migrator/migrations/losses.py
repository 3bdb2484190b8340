"""What a rollback script loses: what it says, and where it says nothing what its statements drop; pure."""

from __future__ import annotations

from migrator.migrations.lint.parse import NotSQL, parse
from migrator.migrations.lint.rules.rollback_loses_data import DECLARED, losses

NOTHING = "nothing"


def of(script: str) -> tuple[str, ...]:
    """Each thing that is lost, in words; empty where nothing is.

    `-- loses: nothing` says that a loss is none: the column can be computed again.
    """
    declared = [found.strip() for found in DECLARED.findall(script)]
    if declared:
        return tuple(said for said in declared if said.rstrip(".").lower() != NOTHING)
    try:
        statements = parse(script).statements
    except NotSQL:
        return ("what cannot be told: this parser does not read it",)
    return tuple(loss.what for statement in statements for loss in losses(statement.node))
