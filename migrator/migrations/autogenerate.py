"""Draft revisions from what the project's metadata has and the database has not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from migrator.errors import Refused, UsageError
from migrator.migrations import applied, history, imports, plan, scaffold, session
from migrator.migrations.compare import Difference, compare
from migrator.migrations.renames import Rename, renames
from migrator.migrations.revision import PHASES, Phase
from migrator.migrations.scaffold import Draft, Part
from migrator.migrations.steps import (
    DROPS_TABLES,
    FINISHES,
    UNTIES,
    VALIDATES,
    Drafter,
    Step,
    autocommit,
    autocommit_script,
)
from migrator.postgres.connect import connect
from migrator.settings import Settings


@dataclass(frozen=True)
class Drafted:
    """The drafts; what was held back for a contract revision; and renames that nobody decided."""

    drafts: tuple[Draft, ...]
    held: tuple[str, ...]
    open: tuple[str, ...]


def draft(
    settings: Settings,
    message: str,
    *,
    phase: Phase = "expand",
    ask: Callable[[Rename], bool] | None = None,
) -> Drafted:
    """Compare the database with the metadata and draft what is between them; writes nothing.

    Several revisions may result. What removes or restricts is held back, unless the phase is
    contract. `ask` decides what may be a rename; without it, both readings are drafted as comments.

    Raises:
        UsageError: [migrations] metadata is not set.
        Refused: revisions are pending, or the database is ahead of the files.
        MigratorError: the metadata does not load.
    """
    metadata = imports.options(settings)["target_metadata"]
    if metadata is None:
        raise UsageError(
            "[migrations] metadata is not set",
            expected='where the tables are declared: metadata = "app.models:Base.metadata"',
            next_step="set it in migrator.toml, then run this again (docs/autogenerate.md)",
        )
    _refuse_pending(settings)
    with session.opened(settings, "autogenerate") as connection:
        difference = compare(settings, connection, metadata)
        return _drafted(settings, difference, message, phase, ask)


def _drafted(
    settings: Settings,
    difference: Difference,
    message: str,
    phase: Phase,
    ask: Callable[[Rename], bool] | None,
) -> Drafted:
    drafter = Drafter(difference)
    confirmed, undecided = _decided(difference, ask)
    settled = {
        id(operation)
        for rename in (*confirmed, *undecided)
        for operation in (rename.vanished, rename.appeared)
    }
    steps = [
        step
        for operation in difference.operations
        if id(operation) not in settled
        for step in drafter.steps(operation)
    ]
    held = [] if phase == "contract" else [s for s in steps if s.phase == "contract"]
    kept = [step for step in steps if step not in held]
    renamed = [drafter.renamed(rename) for rename in confirmed]
    choices = [drafter.choice(rename) for rename in undecided]
    parts = list(_parts(message, phase, kept, held, renamed, choices))
    modules = tuple(sorted(drafter.imports))
    drafts = scaffold.series(settings, [_with_imports(part, modules) for part in parts])
    return Drafted(
        tuple(drafts),
        tuple(step.code.partition("\n")[0] for step in held if step.code),
        tuple(map(str, undecided)),
    )


def _decided(
    difference: Difference, ask: Callable[[Rename], bool] | None
) -> tuple[list[Rename], list[Rename]]:
    """Which renames were confirmed, and which are open; each table or column is in one at most."""
    taken: set[int] = set()
    confirmed, undecided = [], []
    for rename in renames(difference.operations):
        if {id(rename.vanished), id(rename.appeared)} & taken:
            continue
        if ask is None:
            undecided.append(rename)
        elif ask(rename):
            confirmed.append(rename)
        else:
            continue
        taken |= {id(rename.vanished), id(rename.appeared)}
    return confirmed, undecided


def _parts(
    message: str,
    phase: Phase,
    kept: Sequence[Step],
    held: Sequence[Step],
    renamed: Sequence[Step],
    choices: Sequence[str],
) -> Iterator[Part]:
    """The revisions: expand before contract, and in each phase by stage and table."""
    comments = list(choices)
    if kept or choices:
        comments += [_commented(step) for step in held if step.code]
    first = True
    for each in PHASES:
        mine = [step for step in kept if step.phase == each]
        mine += [step for step in renamed if step.phase == each]
        for group in _groups(mine):
            yield _part(message if first else "", each, group, comments)
            first, comments = False, []
    if comments:
        yield Part(message, phase, "\n".join([*comments, "pass"]), _UNDECIDED)


_UNDECIDED = "-- Write here the SQL that undoes the choice you make in upgrade().\n"


def _groups(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """What goes into one revision: a statement that stands alone, or the steps on one table.

    A transaction that alters several tables would hold all their locks; new tables lock nobody.
    """
    by_stage = sorted(steps, key=lambda step: step.stage)
    for stage, same in groupby(by_stage, key=_revision_of):
        group = list(same)
        if group[0].alone:
            yield from ([step] for step in group)
            continue
        if stage == DROPS_TABLES:
            yield group
            continue
        new = {step.table for step in group if step.code.startswith("op.create_table(")}
        altered = list(dict.fromkeys(step.table for step in group if step.table not in new))
        created = [step for step in group if step.table in new]
        if len(altered) <= 1 or not created:
            first, rest = altered[:1], altered[1:]
        else:
            first, rest = [], altered
        yield [step for step in group if step in created or step.table in first]
        yield from ([step for step in group if step.table == table] for table in rest)


def _revision_of(step: Step) -> int:
    """What takes an ACCESS EXCLUSIVE lock shares a revision with what was validated just before it."""
    return VALIDATES if step.stage == FINISHES else step.stage


def _part(message: str, phase: Phase, group: Sequence[Step], comments: Sequence[str]) -> Part:
    said = message or _said(group)
    code = "\n".join(step.code for step in group if step.code)
    undo = "\n".join(filter(None, (_undone(step) for step in reversed(group))))
    if group[0].alone:
        code, undo = autocommit(code), autocommit_script(undo)
    elif not undo:
        undo = "-- Nothing to undo: the constraint goes with the revision that added it.\nSELECT 1;"
    return Part(said, phase, "\n".join([*comments, code]), f"{undo}\n")


def _said(group: Sequence[Step]) -> str:
    step = group[0]
    if step.says:
        return step.says
    verb = {VALIDATES: "validate", FINISHES: "finish", UNTIES: "untie", DROPS_TABLES: "drop"}.get(
        step.stage, "change"
    )
    return f"{verb} {step.table}"


def _undone(step: Step) -> str:
    return f"-- loses: {step.loses}\n{step.undo}" if step.loses and step.undo else step.undo


def _commented(step: Step) -> str:
    first, *rest = step.code.splitlines()
    lines = [f"# contract: {first}", *(f"#   {line}" for line in rest)]
    return "\n".join(lines)


def _with_imports(part: Part, modules: tuple[str, ...]) -> Part:
    used = [line for line in modules if line.split()[-1] in part.upgrade]
    return Part(part.message, part.phase, part.upgrade, part.rollback_script, tuple(used))


def _refuse_pending(settings: Settings) -> None:
    if not settings.migrations_dir.is_dir():
        return
    files = history.read(settings)
    with connect(settings, "plan") as conn:
        conn.read_only = True
        found = plan.make(files, applied.read(conn, settings.migrations))
    if not found.pending and not found.unknown:
        return
    which = ", ".join(r.id for r in found.pending) or ", ".join(found.unknown)
    state = "pending" if found.pending else "in the database and not in this checkout"
    raise Refused(
        f"{which} {'is' if ',' not in which else 'are'} {state}",
        expected="a database at the head of these files: the draft is what it lacks",
        next_step="migrator up" if found.pending else "take the checkout that has them",
    )
