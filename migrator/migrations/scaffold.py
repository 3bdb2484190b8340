"""Start the next revision: its file and the rollback script beside it."""

from __future__ import annotations

import re
import secrets
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from migrator.errors import Refused, UsageError
from migrator.migrations import history
from migrator.migrations.revision import Phase
from migrator.settings import Settings

LONGEST_SLUG = 40
_IMPORTS = "import sqlalchemy as sa\nfrom alembic import op"

_REVISION = '''"""{message}"""

import sqlalchemy as sa
from alembic import op

revision = "{id}"
down_revision = {revises}
phase = "{phase}"


def upgrade() -> None:
    raise NotImplementedError("write what {id} changes")
'''

_ROLLBACK = """\
-- Undo {id}: {message}
-- Write here the SQL that takes back what upgrade() in {file} does, without BEGIN or COMMIT.
-- `migrator up` stores it in the database and refuses the revision until SQL stands here. Where
-- none can exist, delete this file and write in the revision:
--   rollback = irreversible("the reason")    with    from migrator import irreversible
"""


@dataclass(frozen=True)
class Part:
    """What one revision of a series does: its upgrade() and its rollback script, both written."""

    message: str
    phase: Phase
    upgrade: str
    rollback_script: str
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """The two files of a revision that is about to be written."""

    id: str
    revises: str | None
    phase: Phase
    path: Path
    source: str
    rollback_path: Path
    rollback_script: str


def draft(
    settings: Settings, message: str, *, phase: Phase = "expand", after: Sequence[Draft] = ()
) -> Draft:
    """Choose the next id and fill in both files; writes nothing.

    The id goes on counting where all ids are numbers (0004 after 0003), and is random hex where
    they are not. `after` are drafts that it follows.

    Raises:
        UsageError: the message is empty.
        Refused: there are two heads.
        MigratorError: a revision file does not load.
    """
    words = ("".join(filter(str.isprintable, word)) for word in message.split())
    said = " ".join(word for word in words if word)
    if not said:
        raise UsageError(
            "the message is empty",
            expected="one line that says what the revision changes",
            next_step='migrator new "add a note to orders"',
        )
    ids, head, folder = _known(settings)
    for before in after:
        ids, head = [*ids, before.id], before.id
    revision = _next_id(ids)
    slug = _slug(said)
    path = folder / f"{revision}{'_' * bool(slug)}{slug}.py"
    source = _REVISION.format(
        message=_in_docstring(said),
        id=revision,
        revises=f'"{head}"' if head else "None",
        phase=phase,
    )
    return Draft(
        id=revision,
        revises=head,
        phase=phase,
        path=path,
        source=source,
        rollback_path=settings.migrations_dir / "rollback" / f"{revision}.sql",
        rollback_script=_ROLLBACK.format(id=revision, message=said, file=path.name),
    )


def series(settings: Settings, parts: Sequence[Part]) -> list[Draft]:
    """Make a revision of each part, each revising the one before; writes nothing.

    Raises:
        UsageError, Refused, MigratorError: as `draft`.
    """
    drafts: list[Draft] = []
    for part in parts:
        blank = draft(settings, part.message, phase=part.phase, after=drafts)
        blank_body = blank.source[blank.source.index("def upgrade()") :]
        body = f"def upgrade() -> None:\n{textwrap.indent(part.upgrade, '    ')}\n"
        imports = "\n".join(["import sqlalchemy as sa", *part.imports, "from alembic import op"])
        source = blank.source.replace(blank_body, body).replace(_IMPORTS, imports)
        drafts.append(replace(blank, source=source, rollback_script=part.rollback_script))
    return drafts


def write(*drafts: Draft) -> None:
    """Write all files, and the folders where they are absent; overwrites nothing.

    Raises:
        Refused: one of the files exists already; none was written.
    """
    for drafted in drafts:
        for path in (drafted.path, drafted.rollback_path):
            if path.exists():
                raise Refused(
                    f"{path} exists already",
                    expected=f"no file of that name: {drafted.id} is the next revision",
                    next_step="move it away, then run this again",
                )
    for drafted in drafts:
        for path, text in (
            (drafted.path, drafted.source),
            (drafted.rollback_path, drafted.rollback_script),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _known(settings: Settings) -> tuple[list[str], str | None, Path]:
    """The ids that are taken, the head, and the folder for the next file: the head's own."""
    folder = settings.version_locations[-1]
    if not settings.migrations_dir.is_dir():
        return [], None, folder
    files = history.read(settings)
    head = next(iter(files.heads), None)
    return list(files.ids), head, files[head].path.parent if head else folder


def _next_id(ids: list[str]) -> str:
    if all(name.isdecimal() for name in ids):
        width = max((len(name) for name in ids), default=4)
        return str(max((int(name) for name in ids), default=0) + 1).zfill(width)
    while (name := secrets.token_hex(6)) in ids:
        pass
    return name


def _slug(message: str) -> str:
    plain = unicodedata.normalize("NFKD", message).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    slug = words[0][:LONGEST_SLUG] if words else ""
    for word in words[1:]:
        if len(slug) + 1 + len(word) > LONGEST_SLUG:
            break
        slug += f"_{word}"
    return slug


def _in_docstring(message: str) -> str:
    escaped = message.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return (
        escaped[:-1] + r"\"" if escaped.endswith('"') and not escaped.endswith(r"\"") else escaped
    )
