"""For plain `alembic`, which shows this history; migrator itself does not run this file."""

from migrator.migrations.env import run

run()
