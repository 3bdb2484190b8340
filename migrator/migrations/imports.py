"""What a project's env.py would import: its metadata, and modules that register operations."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from migrator.errors import MigratorError
from migrator.settings import Settings


def find_from(root: Path) -> None:
    """Let revisions import the project's own packages, as alembic.ini's prepend_sys_path does."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def options(settings: Settings) -> dict[str, Any]:
    """Import what the settings name; returns what Alembic's context is configured with.

    Raises:
        MigratorError: a module does not import, or has no such metadata.
    """
    migrations = settings.migrations
    find_from(settings.root)
    for name in migrations.import_:
        _module(name, "import")
    return {
        "target_metadata": _metadata(migrations.metadata) if migrations.metadata else None,
        "version_table": migrations.version_table,
        "version_table_schema": migrations.version_table_schema,
    }


def _metadata(place: str) -> Any:
    from sqlalchemy import MetaData

    name, _, path = place.partition(":")
    found: Any = _module(name, "metadata")
    for attribute in path.split("."):
        found = getattr(found, attribute, None)
    if not isinstance(found, MetaData):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise MigratorError(
            f"[migrations] metadata = {place!r} leads to {kind}",
            expected='a SQLAlchemy MetaData, as in "app.models:Base.metadata"',
            next_step="correct the setting",
        )
    return found


def _module(name: str, setting: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as exc:
        raise MigratorError(
            f"[migrations] {setting} names {name}, which does not import: "
            f"{type(exc).__name__}: {exc}",
            expected="a module that Python can import from the settings file's folder",
            next_step="correct the setting or the module, then run this again",
        ) from exc
