"""Small migration folders that tests apply."""

from __future__ import annotations

import textwrap
from pathlib import Path

CONCURRENTLY = """
with op.get_context().autocommit_block():
    op.create_index("t_a", "t", ["a"], {kwargs}postgresql_concurrently=True, if_not_exists=True)
"""


def write(
    root: Path,
    revision: str,
    upgrade: str = "pass",
    *,
    revises: str | None = None,
    rollback: str | None = "SELECT 1;",
    head: str = 'phase = "expand"',
    message: str = "",
) -> Path:
    """Write versions/REVISION_x.py and rollback/REVISION.sql; returns the former."""
    folder = root / "migrations"
    for part in ("versions", "rollback"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    path = folder / "versions" / f"{revision}_x.py"
    body = textwrap.indent(textwrap.dedent(upgrade).strip(), "    ")
    path.write_text(
        f'"""{message or f"Revision {revision}"}"""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "from migrator import irreversible\n\n"
        f"revision = {revision!r}\n"
        f"down_revision = {revises!r}\n"
        f"{head}\n\n"
        f"def upgrade():\n{body}\n",
        encoding="utf-8",
    )
    if rollback is not None:
        (folder / "rollback" / f"{revision}.sql").write_text(rollback, encoding="utf-8")
    return path


def chain(root: Path, *revisions: tuple[str, str, str], phase: str = "expand") -> None:
    """Write (id, upgrade, rollback script) one after the other, each revising the one before."""
    revises = None
    for revision, upgrade, rollback in revisions:
        head = f"phase = {phase!r}"
        write(root, revision, upgrade, revises=revises, rollback=rollback, head=head)
        revises = revision


def tables(root: Path, count: int = 3) -> None:
    """Revisions 0001.. which create tables t1.. and drop them again."""
    chain(
        root,
        *(
            (f"{n:04}", f'op.execute("CREATE TABLE t{n} (a int)")', f"DROP TABLE t{n};")
            for n in range(1, count + 1)
        ),
    )


def indexed(root: Path, *, unique: bool = False) -> None:
    """0001 creates table t, 0002 builds index t_a on it CONCURRENTLY; a unique one restricts."""
    write(root, "0001", 'op.execute("CREATE TABLE t (a int)")', rollback="DROP TABLE t;")
    write(
        root,
        "0002",
        CONCURRENTLY.format(kwargs="unique=True, " if unique else ""),
        revises="0001",
        rollback="-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS t_a;",
        head='phase = "contract"' if unique else 'phase = "expand"',
    )
