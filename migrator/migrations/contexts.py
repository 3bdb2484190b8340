"""Alembic's context on a session: made once, it serves all revisions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, LiteralString

import sqlalchemy as sa
from alembic.runtime.migration import HeadMaintainer, MigrationContext, MigrationStep
from psycopg import sql

from migrator.errors import Refused
from migrator.migrations import applied, imports, render, session
from migrator.migrations.history import History
from migrator.migrations.revision import Revision
from migrator.postgres.together import Ask, Cursor
from migrator.settings import Migrations


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
        record: Callable[[list[Ask]], object],
        autocommit_block: Callable[[], Any] | None,
    ) -> None:
        """Let Alembic run `upgrade`, and `record` send the stamp that it is given, in one transaction.

        It commits, or raises and leaves nothing of its last transaction.
        """
        context = self._on(connection)
        script = render.script(self._history, revision)
        step = MigrationStep.upgrade_from_script(self._history.scripts.revision_map, script)
        # Known from the revision before: the stamp fails where they are not true any more.
        known, self._heads = self._heads, None
        heads = known or context.get_current_heads()
        if not heads:
            context._ensure_version_table()  # noqa: SLF001 - no public name
        stamp = _Stamp(context, heads, self._history.settings.migrations)
        with (
            _overridden(context, autocommit_block=autocommit_block or context.autocommit_block),
            context.begin_transaction(_per_migration=True),
        ):
            upgrade(script.module)
            stamp.update_to_step(step)
            record(stamp.asked)
        # A revision that has called commit() itself leaves Alembic with a transaction that is over;
        # what came after, the stamp with it, is in another, which Alembic does not commit.
        session.driver(connection).commit()
        self._heads = stamp.heads

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


class _Stamp(HeadMaintainer):
    """Alembic decides which rows of the version table change, merges included; they are sent by us."""

    def __init__(self, context: MigrationContext, heads: Any, migrations: Migrations) -> None:
        super().__init__(context, heads)
        self._table = applied.version_table(migrations)
        self._name = migrations.version_table
        # What pg_dump writes empties the search_path, and the version table is found by it.
        self.asked = [Ask(b"RESET search_path")]

    def _insert_version(self, version: str) -> None:
        self.heads.add(version)
        self._ask("INSERT INTO {table} (version_num) VALUES ({new})", new=version)

    def _delete_version(self, version: str) -> None:
        self.heads.remove(version)
        self._ask("DELETE FROM {table} WHERE version_num = {old}", old=version)

    def _update_version(self, from_: str, to_: str) -> None:
        self.heads.remove(from_)
        self.heads.add(to_)
        self._ask(
            "UPDATE {table} SET version_num = {new} WHERE version_num = {old}", old=from_, new=to_
        )

    def _ask(self, query: LiteralString, **versions: str) -> None:
        values = {name: sql.Literal(version) for name, version in versions.items()}
        self.asked.append(
            Ask(sql.SQL(query).format(table=self._table, **values), read=self._one_row(versions))
        )

    def _one_row(self, versions: dict[str, str]) -> Callable[[Cursor], None]:
        def read(cursor: Cursor) -> None:
            if cursor.rowcount != 1:
                raise Refused(
                    f"{self._name} does not name {versions.get('old')}",
                    expected="the version table as this run has left it",
                    next_step="look at migrator history: somebody else changes this database",
                )

        return read


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
