"""Alembic's context on a session: made once, it serves all revisions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationStep

from migrator.migrations import imports, render
from migrator.migrations.history import History
from migrator.migrations.revision import Revision


class Contexts:
    """Keeps the context of the session that was used last; only one can be Alembic's `op`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._held = ExitStack()
        self._context: MigrationContext | None = None
        self._heads: set[str] | None = None

    def run(
        self,
        connection: sa.Connection,
        revision: Revision,
        *,
        upgrade: Callable[[Any], None],
        record: Callable[[], None],
        autocommit_block: Callable[[], Any] | None,
    ) -> None:
        """Let Alembic run `upgrade` and stamp the revision, and `record` in the stamp's transaction.

        It commits, or raises and leaves nothing of its last transaction.
        """
        context = self._on(connection)
        script = render.script(self._history, revision)
        step = MigrationStep.upgrade_from_script(self._history.scripts.revision_map, script)
        step.migration_fn = lambda: upgrade(script.module)
        after: list[set[str]] = []

        def applied(*, heads: set[str], **_: Any) -> None:
            record()
            after.append(heads)

        with _overridden(
            context,
            _migrations_fn=lambda _heads, _context: [step],
            on_version_apply_callbacks=(applied,),
            # Known from the revision before: the stamp fails where they are not true any more.
            get_current_heads=_known(self._heads) or context.get_current_heads,
            autocommit_block=autocommit_block or context.autocommit_block,
        ):
            self._heads = None
            context.run_migrations()
        self._heads = after[-1] or None

    def close(self) -> None:
        """Leave the context; the session stays open."""
        self._context = self._heads = None
        self._held.close()

    def _on(self, connection: sa.Connection) -> MigrationContext:
        if self._context is None or self._context.connection is not connection:
            self.close()
            environment = render.environment(
                self._history.scripts,
                connection=connection,
                transaction_per_migration=True,
                **imports.options(self._history.settings),
            )
            self._context = self._held.enter_context(environment)
        return self._context


def _known(heads: set[str] | None) -> Callable[[], tuple[str, ...]] | None:
    return (lambda: tuple(heads)) if heads else None


@contextmanager
def _overridden(context: MigrationContext, **attributes: Any) -> Iterator[None]:
    """Let the context have these attributes for the block."""
    before = {name: getattr(context, name) for name in attributes}
    for name, value in attributes.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
