"""Read the revisions from their files, oldest first, in the one order they can be applied in."""

from __future__ import annotations

import ast
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import imports, normalise
from migrator.migrations.irreversible import Irreversible
from migrator.migrations.revision import Revision
from migrator.settings import Settings


@dataclass(frozen=True)
class History:
    """Every revision of a checkout, each after those it revises."""

    directory: Path
    revisions: tuple[Revision, ...]
    heads: tuple[str, ...]
    scripts: ScriptDirectory = field(repr=False, compare=False)
    settings: Settings = field(repr=False, compare=False)

    def __getitem__(self, revision: str) -> Revision:
        return self._by_id[revision]

    def __contains__(self, revision: str) -> bool:
        return revision in self._by_id

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._by_id)

    def ancestry(self, *revisions: str) -> frozenset[str]:
        """The revisions and everything they stand on."""
        found: set[str] = set()
        todo = list(revisions)
        while todo:
            found.add(current := todo.pop())
            below = self[current].parents + self[current].requires
            todo += [parent for parent in below if parent not in found]
        return frozenset(found)

    @cached_property
    def _by_id(self) -> dict[str, Revision]:
        return {revision.id: revision for revision in self.revisions}


def read(settings: Settings) -> History:
    """Load every revision without running env.py; connects to nothing.

    The order is Alembic's own: each revision comes after all that it revises or depends on.

    Raises:
        UsageError: there is no such folder, or rules_from names no revision.
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
    refuse_missing(settings)
    imports.find_from(settings.root)
    scripts = ScriptDirectory(
        directory,
        version_locations=settings.version_locations,
        recursive_version_locations=settings.migrations.recursive,
    )
    with _explained(settings):
        loaded = list(scripts.walk_revisions())
        heads = tuple(scripts.get_heads())
    rollback = directory / "rollback"
    revisions = tuple(_revision(script, rollback) for script in reversed(loaded))
    history = History(directory, revisions, heads, scripts, settings)
    _refuse_two_heads(history)
    return _with_exemptions(history, settings.migrations.rules_from)


def _with_exemptions(history: History, rules_from: str | None) -> History:
    """Exempt what the revision `rules_from` stands on; it and all others are held to the rules."""
    if rules_from is None:
        return history
    if rules_from not in history:
        unknown = UsageError.unknown("revision", rules_from, history.ids)
        raise UsageError(
            f"[migrations] rules_from names {rules_from!r}, which no file has",
            expected=unknown.expected,
            next_step="correct rules_from: the first revision that is held to migrator's rules",
        )
    exempt = history.ancestry(rules_from) - {rules_from}
    revisions = tuple(replace(r, exempt=r.id in exempt) for r in history.revisions)
    return replace(history, revisions=revisions)


def refuse_missing(settings: Settings) -> None:
    """Refuse a folder that is named and is not there, where Alembic would see no revision.

    Raises:
        UsageError: it is one of version_locations.
    """
    for folder in settings.migrations.version_locations:
        if not (settings.root / folder).is_dir():
            raise UsageError(
                f"there is no folder {settings.root / folder}",
                expected="a folder of revisions for each of [migrations] version_locations",
                next_step="correct the setting; paths are relative to the settings file",
            )


def _revision(script: Script, scripts: Path) -> Revision:
    path = Path(script.path)
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    rollback = scripts / f"{script.revision}.sql"
    declared = getattr(script.module, "rollback", None)
    return Revision(
        id=script.revision,
        parents=_parents(script),
        message=(script.doc or "").partition("\n")[0].strip(),
        phase=getattr(script.module, "phase", None),
        path=path,
        source_hash=normalise.revision_hash(tree),
        rollback_path=rollback,
        rollback_script=_text(rollback),
        irreversible=declared.reason if isinstance(declared, Irreversible) else None,
        transactional=not _leaves_its_transaction(source, tree),
        backfills=_calls_backfill(source, tree),
        has_upgrade=callable(getattr(script.module, "upgrade", None)),
        requires=_required(script),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _required(script: Script) -> tuple[str, ...]:
    """What depends_on names, branch labels resolved to revisions."""
    return tuple(script._resolved_dependencies)  # noqa: SLF001 - no public name


def _parents(script: Script) -> tuple[str, ...]:
    down = script.down_revision
    if down is None:
        return ()
    return (down,) if isinstance(down, str) else tuple(down)


def _leaves_its_transaction(source: str, tree: ast.Module) -> bool:
    return "autocommit_block" in source and any(
        isinstance(node, ast.Attribute) and node.attr == "autocommit_block"
        for node in ast.walk(tree)
    )


def _calls_backfill(source: str, tree: ast.Module) -> bool:
    if "migrator" not in source or "backfill" not in source:
        return False
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import)]
    if not any("migrator" in ast.unparse(node) for node in imported):
        return False  # an older history may have a function of that name
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
def _explained(settings: Settings) -> Iterator[None]:
    """Turn what goes wrong while files load into a message that names the file."""
    where = ", ".join(map(str, settings.version_locations))
    try:
        with warnings.catch_warnings():
            # Alembic only warns of these two, and fails later with a bare KeyError.
            for text in ("Revision .* is present more than once", "Revision .* is not present"):
                warnings.filterwarnings("error", message=text, category=UserWarning)
            yield
    except (UserWarning, RevisionError, CommandError) as exc:
        raise Refused(
            f"the revisions in {where} make no chain: {exc}",
            expected="each id once, each down_revision the id of another file",
            next_step=f"correct revision or down_revision in that file of {where}",
        ) from exc
    except Exception as exc:
        raise _broken_file(exc, settings.version_locations) from exc


def _broken_file(exc: Exception, folders: list[Path]) -> MigratorError:
    where = "a revision"
    for frame in traceback.extract_tb(exc.__traceback__):
        if any(Path(frame.filename).is_relative_to(folder.resolve()) for folder in folders):
            where = f"{frame.filename}, line {frame.lineno}"
    if isinstance(exc, SyntaxError) and exc.filename:
        where = f"{exc.filename}, line {exc.lineno}"
    said = exc.msg if isinstance(exc, SyntaxError) else exc
    return MigratorError(
        f"{where}: {type(exc).__name__}: {said}",
        expected="a file that Python can import",
        next_step="correct the file, then run this again",
    )
