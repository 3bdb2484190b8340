"""What a pending revision must have before anything is applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pglast import ast, enums

from migrator.errors import Refused
from migrator.migrations import backfill, render, scripts
from migrator.migrations.history import History
from migrator.migrations.revision import PHASES, Revision

MAX_ID = 32


def refuse_incomplete(history: History, revisions: Iterable[Revision]) -> None:
    """Check all of them, and name every problem of every one at once; reads no database.

    Raises:
        Refused: any has no phase, no usable rollback script, or cannot be applied safely.
    """
    found = [
        {"revision": revision.id, "file": str(revision.path), "problem": problem}
        for revision in revisions
        for problem in problems(history, revision)
    ]
    if not found:
        return
    lines = "".join(f"\n  {entry['revision']}: {entry['problem']}" for entry in found)
    many = f"{len(found)} things are" if len(found) > 1 else "one thing is"
    raise Refused(
        f"nothing was applied: {many} missing or wrong in the pending revisions:{lines}",
        expected='a phase, and a rollback script or rollback = irreversible("reason"), in each',
        next_step="correct the files (docs/migrations.md), then run this again",
        problems=found,
    )


def problems(history: History, revision: Revision) -> Iterator[str]:
    """Say what keeps this revision from being applied."""
    if len(revision.id) > MAX_ID:
        yield f"the id has {len(revision.id)} characters; the version table takes {MAX_ID}"
    if not revision.has_upgrade:
        yield f"{revision.path.name} has no upgrade()"
    if revision.exempt:
        return
    if len(revision.parents) > 1:
        yield f"it merges {' and '.join(revision.parents)}; a pending revision revises exactly one"
    if revision.phase not in PHASES:
        said = "no phase" if revision.phase is None else f"phase {revision.phase!r}"
        yield f'{revision.path.name} has {said}; write phase = "expand" or phase = "contract"'
    if revision.has_upgrade and revision.backfills:
        yield from _backfill_problems(history, revision)
    elif revision.has_upgrade and not revision.transactional:
        yield from _autocommit_problems(history, revision)
    yield from _rollback_problems(revision)


def _rollback_problems(revision: Revision) -> Iterator[str]:
    where = f"rollback/{revision.rollback_path.name}"
    if revision.rollback_script is None:
        if revision.irreversible is None:
            yield f"{where} is missing"
        return
    if revision.irreversible is not None:
        yield f"{where} exists, and {revision.path.name} says irreversible; keep one of the two"
        return
    problem = scripts.problem(revision.rollback_script)
    if problem:
        yield f"{where} {problem}"


def _autocommit_problems(history: History, revision: Revision) -> Iterator[str]:
    try:
        autocommit_statement(history, revision)
    except ValueError as exc:
        yield f"{revision.path.name} {exc}"


def _backfill_problems(history: History, revision: Revision) -> Iterator[str]:
    try:
        backfill.of(history, revision)
    except ValueError as exc:
        yield f"{revision.path.name} {exc}"


def autocommit_statement(history: History, revision: Revision) -> ast.Node:
    """Return the one statement of a revision that leaves its transaction.

    Raises:
        ValueError: it is not exactly one, or cannot be repeated; the message goes on after a name.
    """
    try:
        rendered = scripts.parsed(render.render(history, revision))
    except render.NotRenderable as exc:
        raise ValueError(
            f"uses autocommit_block, so its SQL must be known beforehand, but it cannot be "
            f"rendered offline: {exc}"
        ) from exc
    inside, outside = _inside_and_outside(rendered)
    if len(inside) != 1 or outside:
        raise ValueError(
            f"uses autocommit_block with {len(inside)} statements inside it and {len(outside)} "
            "outside; it must hold exactly one, inside, and nothing else: what is outside would "
            "be committed without its stamp"
        )
    if not scripts.is_repeatable(inside[0]):
        raise ValueError(
            f"runs a statement outside a transaction that cannot be repeated; "
            f"allowed: {scripts.REPEATABLE}"
        )
    return inside[0]


def _inside_and_outside(rendered: list[ast.Node]) -> tuple[list[ast.Node], list[ast.Node]]:
    """Sort what Alembic renders: an autocommit block stands between COMMIT and BEGIN."""
    inside: list[ast.Node] = []
    outside: list[ast.Node] = []
    current = outside
    for statement in rendered:
        if isinstance(statement, ast.TransactionStmt):
            commits = statement.kind == enums.TransactionStmtKind.TRANS_STMT_COMMIT
            current = inside if commits else outside
        else:
            current.append(statement)
    return inside, outside
