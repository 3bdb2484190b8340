"""The `lint` command's work: choose what is linted, gather what is known of it, run the linter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.errors import MigratorError, UsageError
from migrator.migrations.lint import linter, source
from migrator.migrations.lint.linter import Linted
from migrator.migrations.lint.model import Severity
from migrator.migrations.lint.source import Source
from migrator.migrations.revision import Revision
from migrator.settings import Settings

if TYPE_CHECKING:
    from migrator.migrations.history import History
    from migrator.postgres.connect import Connection

STDIN = "-"


@dataclass(frozen=True)
class Report:
    """What was found in each source, and what could not be looked at."""

    linted: tuple[Linted, ...]
    notes: tuple[str, ...]

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(f.severity == severity for each in self.linted for f in each.findings)


def lint(
    settings: Settings,
    targets: Iterable[str] = (),
    *,
    stdin: str = "",
    database: bool = True,
    capturing: bool = False,
) -> Report:
    """Lint revisions and SQL files; without targets what is pending, or all where no database is.

    Reads the database where one is named and `database` is True; never writes to it. `capturing`
    runs the revisions whose SQL cannot be rendered offline, in a transaction that is rolled back.

    Raises:
        UsageError: no such revision or file.
        CannotConnect: the database does not answer.
        MigratorError: a file does not load, or squawk is not there.
    """
    targets = list(targets)
    notes: list[str] = []
    with _connected(settings, wanted=database, notes=notes) as conn:
        if capturing and conn is None:
            raise UsageError(
                "--capture needs a database",
                expected="--database-url or a setting that names one, and no --no-database",
            )
        sources = _sources(settings, targets, stdin, conn)
        if capturing:
            sources = _captured(settings, sources, conn)
        projections = _projections(settings, notes)
        linted = tuple(_linted(settings, conn, each, projections) for each in sources)
    return Report(linted, tuple(notes))


def _linted(
    settings: Settings, conn: Connection | None, each: Source, projections: frozenset[str]
) -> Linted:
    from migrator.migrations.lint import surroundings

    around = surroundings.without_database(settings, managed=each.managed, projections=projections)
    if conn is None:
        return linter.lint(each, around)
    around = surroundings.from_database(conn, around, each.script)
    return linter.lint(each, around, pg_version=_pg_version(conn))


@contextmanager
def _connected(
    settings: Settings, *, wanted: bool, notes: list[str]
) -> Iterator[Connection | None]:
    if wanted and not settings.names_a_database:
        notes.append("no database is named: sizes of tables, and what is pending, are not known")
    if not wanted or not settings.names_a_database:
        yield None
        return
    from migrator.postgres.connect import connect

    with connect(settings, "lint") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield conn


def _pg_version(conn: Connection) -> str:
    return f"{conn.info.server_version // 10000}.{conn.info.server_version % 10000}"


# What is linted


def _sources(
    settings: Settings, targets: list[str], stdin: str, conn: Connection | None
) -> list[Source]:
    if targets and all(_is_sql(target) for target in targets):
        return [_from_file(settings, target, stdin) for target in targets]
    from migrator.migrations import history

    files = history.read(settings)
    if not targets:
        return [_from_revision(files, each) for each in _by_default(settings, files, conn)]
    return [
        _from_file(settings, target, stdin)
        if _is_sql(target)
        else _from_revision(files, _revision(files, target))
        for target in targets
    ]


def _is_sql(target: str) -> bool:
    return target == STDIN or target.lower().endswith(".sql")


def _from_file(settings: Settings, target: str, stdin: str) -> Source:
    if target == STDIN:
        return source.from_sql(stdin, "<stdin>")
    path = Path(target)
    if not path.is_file():
        raise UsageError(
            f"there is no file {target}",
            expected="an SQL file, a revision's id or file, or - for standard input",
        )
    try:
        sql = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise MigratorError(f"{target} is no UTF-8: {exc.reason} at byte {exc.start}") from None
    rollback = settings.migrations_dir / "rollback"
    managed = path.resolve().is_relative_to(rollback.resolve())
    return source.from_sql(sql, source.shown_path(path), managed=managed)


def _revision(files: History, target: str) -> Revision:
    known = {revision.id: revision for revision in files.revisions}
    if target in known:
        return known[target]
    path = Path(target).resolve()
    for revision in files.revisions:
        if revision.path.resolve() == path:
            return revision
    raise UsageError.unknown("revision", target, known, next_step="migrator lint REV or FILE.sql")


def _from_revision(files: History, revision: Revision) -> Source:
    return source.from_revision(files, revision, source.shown_path(revision.path))


def _by_default(
    settings: Settings, files: History, conn: Connection | None
) -> tuple[Revision, ...]:
    """What is pending, without a database everything; but for what `rules_from` exempts."""
    held = files.revisions
    if conn is not None:
        from migrator.migrations import applied, plan

        held = plan.make(files, applied.read(conn, settings.migrations)).pending
    return tuple(revision for revision in held if not revision.exempt)


def _captured(settings: Settings, sources: list[Source], conn: Connection | None) -> list[Source]:
    """Run what could not be rendered, after what is pending before it, and roll all of it back."""
    if all(each.script.analysable or each.script.revision is None for each in sources):
        return sources
    from migrator.migrations import applied, history, plan
    from migrator.migrations.lint import capture

    assert conn is not None
    files = history.read(settings)
    pending = plan.make(files, applied.read(conn, settings.migrations)).pending
    wanted = {each.script.revision for each in sources if not each.script.analysable}
    caught = capture.capture(settings, files, pending, frozenset(filter(None, wanted)))
    return [caught.get(each.script.revision or "", each) for each in sources]


def _projections(settings: Settings, notes: list[str]) -> frozenset[str]:
    """The tables that the checkout's projections define."""
    if not settings.projections_dir.is_dir():
        return frozenset()
    from migrator.projections import registry

    try:
        found = registry.load(settings.projections_dir)
    except MigratorError as exc:
        notes.append(f"the projections' tables are not known: {exc.found}")
        return frozenset()
    schema = settings.projections.schema_
    names = set()
    for registered in found.values():
        table = registered.definition.table.name
        names |= {table, f"{registered.definition.schema or schema}.{table}"}
    return frozenset(names)
