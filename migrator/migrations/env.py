"""What a project's env.py runs for plain `alembic`: its history, current, heads, show, check."""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext

from migrator.errors import Refused
from migrator.migrations import session
from migrator.postgres import ledger
from migrator.settings import Settings, load


def run() -> None:
    """Configure Alembic with migrator's settings and run the command that was asked for.

    Raises:
        Refused: the command would apply or stamp a revision past this database's ledger.
    """
    settings = load()
    if context.is_offline_mode():
        _configure(settings, dialect_name="postgresql", literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    with session.opened(settings, "alembic") as connection:
        _configure(settings, connection=connection, on_version_apply=_refuse_past_ledger)
        with context.begin_transaction():
            context.run_migrations()


def _configure(settings: Settings, **options: Any) -> None:
    context.configure(
        version_table=settings.migrations.version_table, transaction_per_migration=True, **options
    )


def _refuse_past_ledger(*, ctx: MigrationContext, **_: Any) -> None:
    """Keep version table and ledger in step: a revision without an entry would stop `up`."""
    assert ctx.connection is not None
    if ledger.exists(session.driver(ctx.connection)):
        raise Refused(
            "this database has a ledger, and plain alembic does not write it",
            expected="migrator to apply and undo revisions here; alembic may read",
            next_step="migrator up, or migrator rollback",
        )
