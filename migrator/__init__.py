"""One deploy step for a PostgreSQL schema and the projections derived from Kafka.

The names that a user's files import; each is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrator.migrations.backfill import backfill as backfill
    from migrator.migrations.irreversible import irreversible as irreversible
    from migrator.projections.definition import Projection as Projection
    from migrator.projections.definition import check as check
    from migrator.projections.definition import on as on
    from migrator.projections.events import Event as Event
    from migrator.projections.events import Meta as Meta
    from migrator.projections.events import Tombstone as Tombstone
    from migrator.projections.events import upcast as upcast
    from migrator.projections.reducers import count as count
    from migrator.projections.reducers import latest as latest
    from migrator.projections.reducers import maximum as maximum
    from migrator.projections.reducers import minimum as minimum
    from migrator.projections.reducers import total as total

_HOMES = {
    "backfill": "migrator.migrations.backfill",
    "irreversible": "migrator.migrations.irreversible",
    "Projection": "migrator.projections.definition",
    "check": "migrator.projections.definition",
    "on": "migrator.projections.definition",
    "Event": "migrator.projections.events",
    "Meta": "migrator.projections.events",
    "Tombstone": "migrator.projections.events",
    "upcast": "migrator.projections.events",
    "count": "migrator.projections.reducers",
    "latest": "migrator.projections.reducers",
    "maximum": "migrator.projections.reducers",
    "minimum": "migrator.projections.reducers",
    "total": "migrator.projections.reducers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'migrator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
