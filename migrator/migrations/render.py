"""The SQL of a revision, rendered without a database: Alembic's offline mode."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from migrator.migrations import imports
from migrator.migrations.history import History
from migrator.migrations.revision import Revision


class NotRenderable(Exception):
    """The revision's SQL depends on what the database answers; the message is Python's."""


def render(history: History, revision: Revision) -> str:
    """Return the statements that upgrade() would send, with no connection at all.

    Runs upgrade() in Alembic's offline mode, so whatever else that function does is done.

    Raises:
        NotRenderable: upgrade() asks for results, or fails.
    """
    buffer = io.StringIO()
    with offline(history, buffer):
        script(history, revision).module.upgrade()
    return buffer.getvalue().strip()


@contextmanager
def offline(history: History, buffer: io.StringIO) -> Iterator[MigrationContext]:
    """Collect in the buffer what is sent in the block, with no connection at all.

    Raises:
        NotRenderable: what runs in the block asks for results, or fails.
    """
    options = {
        **imports.options(history.settings),
        "as_sql": True,
        "dialect_name": "postgresql",
        "dialect_opts": {"paramstyle": "named"},
        "literal_binds": True,
        "output_buffer": buffer,
    }
    try:
        with environment(history.scripts, **options) as context:
            yield context
    except Exception as exc:
        raise NotRenderable(f"{type(exc).__name__}: {exc}") from exc


def script(history: History, revision: Revision) -> Any:
    """Alembic's object for the revision."""
    return history.scripts.get_revision(revision.id)


@contextmanager
def environment(scripts: ScriptDirectory, **options: Any) -> Iterator[MigrationContext]:
    """Make `op` and `context` work for the block as they do under env.py."""
    with EnvironmentContext(Config(), scripts) as env:
        env.configure(**options)
        with Operations.context(context := env.get_context()):
            yield context
