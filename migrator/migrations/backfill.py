"""`backfill()`: fill a column page by page, in a revision of its own or as a library call.

In a revision it only declares what is to be done; `up` does it, on a session of its own. Everywhere
else it does it there and then. docs/backfill.md has the guarantees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from psycopg import sql

from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import render, scripts
from migrator.migrations.pace import LARGEST_BATCH, Limits

if TYPE_CHECKING:
    from pglast import ast

    from migrator.migrations.history import History
    from migrator.migrations.pages import Filled, Filling
    from migrator.migrations.retry import Retry
    from migrator.migrations.revision import Revision
    from migrator.settings import Settings

DOCS = "docs/backfill.md shows both forms"


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """What is filled, with which SQL, and by which key its pages are cut.

    An empty key stands for the primary key. Either `assignments` or `template` says what is done.
    """

    table: str
    key: tuple[str, ...] = ()
    assignments: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    template: str | None = None
    batch: int = 1000
    limits: Limits = field(default=Limits(), compare=False)

    @property
    def hash(self) -> str:
        """SHA-256 of what decides which rows become what; the pace is no part of it."""
        said = asdict(self)
        del said["batch"], said["limits"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> sql.Identifier:
        """The table's name, a schema before it where one was given."""
        return sql.Identifier(*self.table.split("."))

    def statement(
        self, key: Sequence[str], low: sql.Composable, high: sql.Composable
    ) -> sql.Composed:
        """The SQL of one page; `low` and `high` are its first and its last key, both within it."""
        if self.template is not None:
            return sql.Composed(list(_filled_in(self.template, low, high)))
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        if len(key) > 1:
            columns, low, high = (sql.SQL("({})").format(part) for part in (columns, low, high))
        within = sql.SQL("{0} >= {1} AND {0} <= {2}").format(columns, low, high)
        if self.where is not None:
            within = sql.SQL("{} AND ({})").format(within, trusted(self.where))
        assigned = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), trusted(expression))
            for column, expression in self.assignments
        )
        return sql.SQL("UPDATE {} SET {} WHERE {}").format(self.name, assigned, within)

    def shown(self) -> str:
        """The SQL of one page with `:low` and `:high` in it, for people."""
        return self.statement(self.key or ("key",), _LOW, _HIGH).as_string(None)

    def parsed(self) -> list[ast.Node]:
        """The syntax trees of one page's SQL.

        Raises:
            ValueError: it is no SQL.
        """
        page = self.statement(self.key or ("key",), sql.SQL("$1"), sql.SQL("$2"))
        return scripts.parsed(page.as_string(None))


_LOW, _HIGH = sql.SQL(":low"), sql.SQL(":high")
_RECEIVED: ContextVar[list[Backfill] | None] = ContextVar("received", default=None)


def backfill(
    table: str,
    *,
    key: str | Sequence[str] | None = None,
    set: Mapping[str, str] | None = None,  # noqa: A002 - SQL's own word
    where: str | None = None,
    sql: str | None = None,
    batch: int = 1000,
    target_ms: int = 200,
    max_rows_per_s: float | None = None,
    max_replay_lag_s: float | None = 10.0,
    max_replay_lag_bytes: int | None = 256 * 1024 * 1024,
    max_active: float | None = 0.8,
    max_lock_waiters: int | None = 0,
    name: str | None = None,
    settings: Settings | None = None,
    progress: Callable[[Filling | Retry], None] | None = None,
) -> Filled | None:
    """Update a table in keyset pages, each its own transaction; killed anywhere, it goes on.

    `set` maps columns to SQL expressions, `where` chooses the rows and must be false for a row
    that has been set; or `sql` is a whole statement with :low and :high. In a revision it is the
    only thing that upgrade() holds, and returns None. Elsewhere it runs at once, under a lock
    named after it; `name` tells apart calls that are resumed on their own.

    Raises:
        UsageError: what was given makes no backfill.
        Refused, Busy, MigratorError: as pages.fill.
    """
    limits = Limits(
        target_ms=target_ms,
        max_rows_per_s=max_rows_per_s,
        max_replay_lag_s=max_replay_lag_s,
        max_replay_lag_bytes=max_replay_lag_bytes,
        max_active=max_active,
        max_lock_waiters=max_lock_waiters,
    )
    declared = Backfill(
        table=table,
        key=(key,) if isinstance(key, str) else tuple(key or ()),
        assignments=tuple((set or {}).items()),
        where=where,
        template=sql,
        batch=batch,
        limits=limits,
    )
    _refuse_wrong(declared)
    if _declared_in_a_revision(declared):
        return None
    from migrator.migrations import pages
    from migrator.settings import load

    return pages.fill(settings or load(), declared, name=name, progress=progress)


@contextmanager
def received() -> Iterator[list[Backfill]]:
    """Let backfill() only say what it would do, for the block."""
    found: list[Backfill] = []
    token = _RECEIVED.set(found)
    try:
        yield found
    finally:
        _RECEIVED.reset(token)


def of(history: History, revision: Revision) -> Backfill:
    """Return the one backfill that a revision declares; reads no database.

    Raises:
        ValueError: there is not exactly one, or something beside it; the message goes on after a
            file's name.
    """
    with received() as found:
        try:
            beside = render.render(history, revision)
        except render.NotRenderable as exc:
            cause = exc.__cause__
            said = cause.found if isinstance(cause, MigratorError) else exc
            raise ValueError(f"uses backfill(), which cannot be read beforehand: {said}") from exc
    if len(found) != 1 or beside:
        counted = "no backfill()" if not found else f"{len(found)} backfill()"
        other = f" and beside it: {scripts.first_line(beside)}" if beside else ""
        raise ValueError(
            f"calls {counted}{other}; such a revision must hold exactly one backfill() and "
            "nothing else: its pages commit on their own, what stands beside them would not"
        )
    return found[0]


def _declared_in_a_revision(declared: Backfill) -> bool:
    """Hand the declaration to whoever runs the revision; False where none does."""
    waiting = _RECEIVED.get()
    if waiting is not None:
        waiting.append(declared)
        return True
    from alembic import context as environment

    try:  # not op's, which stays behind where a revision has failed
        context = environment.get_context()
    except (NameError, AttributeError):  # Alembic's two ways to say that no revision runs
        return False
    if context.as_sql:
        context.impl.static_output(
            "-- page by page, each in a transaction of its own, $1 and $2 its first and last key\n"
            f"{_with_numbers(declared)};"
        )
        return True
    raise Refused(
        f"backfill() of {declared.table} was called where migrator does not run it page by page",
        expected="`migrator up`, and a call of backfill() by that name in the revision's own file",
        next_step="apply it with migrator up; " + DOCS,
    )


def _with_numbers(declared: Backfill) -> str:
    page = declared.statement(declared.key or ("key",), sql.SQL("$1"), sql.SQL("$2"))
    return page.as_string(None)


def _refuse_wrong(declared: Backfill) -> None:
    problem = _problem(declared)
    if problem is not None:
        raise UsageError(
            f"backfill() of {declared.table or 'no table'}: {problem}",
            expected='backfill("orders", set={"note": "\'\'"}, where="note IS NULL")',
            next_step=DOCS,
        )


def _problem(declared: Backfill) -> str | None:
    if not all(declared.table.split(".")) or declared.table.count(".") > 1:
        return "the table must be named as table or schema.table"
    if bool(declared.assignments) == (declared.template is not None):
        return "give either set= or sql=, and not both"
    if declared.template is not None and declared.where is not None:
        return "where= goes with set=; with sql= the condition belongs into the statement"
    if declared.template is not None and not {"low", "high"} <= _bounds(declared.template):
        return "sql= must bound its page by both :low and :high"
    if set(dict(declared.assignments)) & set(declared.key):
        return "it sets a column of its own key, by which the pages are cut"
    return _pace_problem(declared) or _sql_problem(declared)


def _pace_problem(declared: Backfill) -> str | None:
    if not 1 <= declared.batch <= LARGEST_BATCH:
        return f"batch must be from 1 to {LARGEST_BATCH:,}, not {declared.batch}"
    wrong = [n for n, v in asdict(declared.limits).items() if v is not None and _too_small(n, v)]
    if wrong:
        return f"{wrong[0]} must be above zero"
    return None


def _too_small(name: str, value: float) -> bool:
    return value < 0 if name == "max_lock_waiters" else value <= 0


def _sql_problem(declared: Backfill) -> str | None:
    from pglast import ast

    try:
        statements = declared.parsed()
    except ValueError as exc:
        return f"its SQL does not parse: {exc}: {declared.shown()}"
    allowed = (ast.UpdateStmt, ast.InsertStmt, ast.DeleteStmt)
    if len(statements) != 1 or not isinstance(statements[0], allowed):
        return f"it must be one UPDATE, INSERT or DELETE, not: {declared.shown()}"
    return None


def _bounds(template: str) -> set[str]:
    return {template[start + 1 : end] for start, end in _places(template)}


def _places(template: str) -> Iterator[tuple[int, int]]:
    """Where :low and :high stand in the SQL; not those in strings, comments and casts."""
    from pglast import parser

    try:
        tokens = [(t.start, t.end + 1, t.name) for t in parser.scan(template)]
    except parser.ParseError:
        return
    for (start, colon_end, name), (word_start, end, _) in pairwise(tokens):
        word = template[word_start:end]
        if name == "ASCII_58" and colon_end == word_start and word in ("low", "high"):
            yield start, end


def _filled_in(
    template: str, low: sql.Composable, high: sql.Composable
) -> Iterator[sql.Composable]:
    last = 0
    for start, end in _places(template):
        yield trusted(template[last:start])
        yield low if template[start + 1 : end] == "low" else high
        last = end
    yield trusted(template[last:])


def trusted(text: str) -> sql.SQL:
    """SQL from a revision's own file, or from the catalog: as trusted as the rest of it."""
    return sql.SQL(text)
