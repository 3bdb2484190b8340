"""What is linted: a revision's SQL or an SQL file, with the way back to the lines of its file."""

from __future__ import annotations

import io
import re
import sys
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from migrator.migrations.lint.model import Script, Statement
from migrator.migrations.lint.parse import NotSQL, parse
from migrator.migrations.revision import Revision
from migrator.migrations.scripts import is_autocommit

if TYPE_CHECKING:
    from migrator.migrations.history import History

_STRAY = re.compile(r"^--[ \t]*squawk-disable-assume-in-transaction\b", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A script with its SQL, and the file that people know it by.

    `places` is the line of the file for the first line of each statement of the SQL, where the
    file is a revision; an SQL file's lines are its own. `managed` says that migrator's runner
    sends it, with its timeouts. `problem` is why it does not parse.
    """

    script: Script
    sql: str
    file: str
    code: str | None = None
    places: Mapping[int, int] = field(default_factory=dict)
    managed: bool = False
    problem: NotSQL | None = None

    @property
    def name(self) -> str:
        """What the source is called in a message."""
        return f"revision {self.script.revision}" if self.script.revision else self.file

    def statement(self, line: int | None) -> Statement | None:
        """The statement that a line of the SQL lies in."""
        found = None
        for each in self.script.statements:
            if line is not None and each.line <= line:
                found = each
        return found

    def place(self, line: int | None) -> int | None:
        """The line of the file for a line of the SQL."""
        if self.code is None or line is None:
            return line
        statement = self.statement(line)
        return self.places.get(statement.line if statement else line)

    def place_near(self, line: int) -> int | None:
        """The line of the file for a line of the SQL; for a comment, that of the next statement."""
        if self.code is None:
            return line
        following = [each.line for each in self.script.statements if each.line > line]
        return self.places.get(following[0]) if following else None


def from_sql(sql: str, file: str, *, managed: bool = False) -> Source:
    """Take an SQL file: one transaction, unless its first line is `-- migrator: autocommit`.

    What does not parse becomes a script that is not analysable, and says why.
    """
    apart = is_autocommit(sql) or bool(_STRAY.search(sql))
    script, problem = _script(sql, path=file, in_transaction=not apart)
    return Source(script, sql, file, managed=managed, problem=problem)


def from_revision(history: History, revision: Revision, file: str) -> Source:
    """Take what a revision sends, rendered offline; where that cannot be known, say why."""
    from migrator.migrations import render

    written = _Written(str(revision.path))
    try:
        with render.offline(history, written) as context:
            # An autocommit block would render COMMIT and BEGIN, no statements of its own.
            context.impl.emit_begin = context.impl.emit_commit = lambda: None  # type: ignore[method-assign]
            render.script(history, revision).module.upgrade()
    except render.NotRenderable as exc:
        why = f"its SQL depends on what the database answers: {exc}"
        return unknown(revision, file, why)
    return known(revision, file, written.getvalue(), written.places)


def known(revision: Revision, file: str, sql: str, places: list[tuple[int, int]]) -> Source:
    """Take what a revision sends; `places` are (offset in the SQL, line of the file), ascending."""
    script, problem = _script(sql, **_declared(revision, file))
    offsets = [offset for offset, _ in places]
    ends = [*(match.start() for match in re.finditer("\n", sql)), len(sql)]
    lines = [statement.line for statement in script.statements]
    found = {}
    if problem is not None and problem.line is not None:
        lines.append(problem.line)
    for line in lines:
        index = bisect_right(offsets, ends[line - 1] - 1) - 1
        if index >= 0:
            found[line] = places[index][1]
    code = revision.path.read_text(encoding="utf-8")
    return Source(script, sql, file, code=code, places=found, managed=True, problem=problem)


def unknown(revision: Revision, file: str, why: str) -> Source:
    """A revision whose SQL cannot be known beforehand."""
    script = Script((), analysable=False, why_not=why, **_declared(revision, file))
    code = revision.path.read_text(encoding="utf-8")
    return Source(script, "", file, code=code, managed=True)


def _declared(revision: Revision, file: str) -> dict[str, Any]:
    return {
        "in_transaction": revision.transactional,
        "revision": revision.id,
        "path": file,
        "phase": revision.phase,
        "rollback_script": revision.rollback_script,
        "irreversible": revision.irreversible,
    }


def _script(sql: str, **known: Any) -> tuple[Script, NotSQL | None]:
    try:
        return parse(sql, **known), None
    except NotSQL as exc:
        return Script((), analysable=False, why_not=f"it does not parse: {exc}", **known), exc


class _Written(io.StringIO):
    """Collects SQL and, for each piece, the line of the revision's file that sent it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.places: list[tuple[int, int]] = []

    def write(self, text: str, /) -> int:
        line = calling_line(self.path)
        if line is not None and text.strip():
            self.places.append((self.tell(), line))
        return super().write(text)


def calling_line(path: str) -> int | None:
    """The line of that file which is being run, where it is on the stack."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_code.co_filename == path:
            return frame.f_lineno
        frame = frame.f_back
    return None


def shown_path(path: Path) -> str:
    """The path as people type it: from the current folder where it lies beneath."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
