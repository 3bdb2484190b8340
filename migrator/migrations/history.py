"""Read the revisions from their files, oldest first, in the one order they can be applied in."""

from __future__ import annotations

import ast
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations.irreversible import Irreversible
from migrator.migrations.revision import Revision
from migrator.settings import Settings
from migrator.source import source_hash


@dataclass(frozen=True)
class History:
    """Every revision of a checkout, each after those it revises."""

    directory: Path
    revisions: tuple[Revision, ...]
    heads: tuple[str, ...]
    scripts: ScriptDirectory = field(repr=False, compare=False)

    def __getitem__(self, revision: str) -> Revision:
        return next(known for known in self.revisions if known.id == revision)

    def ancestry(self, revision: str) -> frozenset[str]:
        """The revision and everything it stands on."""
        found: set[str] = set()
        todo = [revision]
        while todo:
            found.add(current := todo.pop())
            todo += [parent for parent in self[current].parents if parent not in found]
        return frozenset(found)


def read(settings: Settings) -> History:
    """Load every revision without running env.py; connects to nothing.

    Raises:
        UsageError: there is no such folder.
        Refused: two heads, a revision that is there twice, or one that revises what is not there.
        MigratorError: a file does not load; the message names file and line.
    """
    directory = settings.migrations_dir
    if not directory.is_dir():
        raise UsageError(
            f"there is no folder {directory}",
            expected="the folder that [migrations] directory names",
            next_step='start one with migrator new "MESSAGE", or correct the setting',
        )
    scripts = ScriptDirectory(directory)
    with _explained(directory):
        loaded = list(scripts.walk_revisions())
        heads = tuple(scripts.get_heads())
    revisions = tuple(_revision(script, directory) for script in reversed(loaded))
    history = History(directory, revisions, heads, scripts)
    _refuse_two_heads(history)
    return history


def _revision(script: Script, directory: Path) -> Revision:
    path = Path(script.path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    rollback = directory / "rollback" / f"{script.revision}.sql"
    declared = getattr(script.module, "rollback", None)
    return Revision(
        id=script.revision,
        parents=_parents(script),
        message=(script.doc or "").partition("\n")[0].strip(),
        phase=getattr(script.module, "phase", None),
        path=path,
        source_hash=source_hash([tree]),
        rollback_path=rollback,
        rollback_script=rollback.read_text(encoding="utf-8") if rollback.is_file() else None,
        irreversible=declared.reason if isinstance(declared, Irreversible) else None,
        transactional=not _leaves_its_transaction(tree),
        backfills=_calls_backfill(tree),
        has_upgrade=callable(getattr(script.module, "upgrade", None)),
    )


def _parents(script: Script) -> tuple[str, ...]:
    down = script.down_revision
    if down is None:
        return ()
    return (down,) if isinstance(down, str) else tuple(down)


def _leaves_its_transaction(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == "autocommit_block"
        for node in ast.walk(tree)
    )


def _calls_backfill(tree: ast.Module) -> bool:
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(getattr(func, "id", getattr(func, "attr", None)) == "backfill" for func in called)


def _refuse_two_heads(history: History) -> None:
    if len(history.heads) < 2:
        return
    heads = [history[head] for head in sorted(history.heads)]
    first, *_, last = heads
    raise Refused(
        f"there are {len(heads)} heads:"
        + "".join(f"\n  {head.id} in {head.path.name}, revises {head.revises}" for head in heads),
        expected="exactly one head",
        next_step=f'let one revise the other: down_revision = "{first.id}" in {last.path}',
        heads=[head.id for head in heads],
    )


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what goes wrong while files load into a message that names the file."""
    try:
        with warnings.catch_warnings():
            # Alembic only warns of these two, and fails later with a bare KeyError.
            for text in ("Revision .* is present more than once", "Revision .* is not present"):
                warnings.filterwarnings("error", message=text, category=UserWarning)
            yield
    except (UserWarning, RevisionError, CommandError) as exc:
        raise Refused(
            f"the revisions in {directory / 'versions'} make no chain: {exc}",
            expected="each id once, each down_revision the id of another file",
            next_step=f"correct revision or down_revision in that file of {directory / 'versions'}",
        ) from exc
    except Exception as exc:
        raise _broken_file(exc, directory) from exc


def _broken_file(exc: Exception, directory: Path) -> MigratorError:
    where = "a revision"
    for frame in traceback.extract_tb(exc.__traceback__):
        if Path(frame.filename).is_relative_to(directory.resolve()):
            where = f"{frame.filename}, line {frame.lineno}"
    if isinstance(exc, SyntaxError) and exc.filename:
        where = f"{exc.filename}, line {exc.lineno}"
    said = exc.msg if isinstance(exc, SyntaxError) else exc
    return MigratorError(
        f"{where}: {type(exc).__name__}: {said}",
        expected="a file that Python can import",
        next_step="correct the file, then run this again",
    )
