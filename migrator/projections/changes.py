"""Which projections need a rebuild, since their definition is not that of their live build."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.registry import Registered

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class Change:
    """A projection that has no live build, or whose live build is of another definition.

    `parts` says what of the definition differs, as `handler placed changed`. It is empty where
    nothing is live, and where the parts do not tell.
    """

    projection: str
    live: int | None
    parts: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        if self.live is None:
            return "not built yet"
        told = ", ".join(self.parts) or "which part of it cannot be told"
        return f"its definition has changed since build {self.live}: {told}"


def find(settings: Settings) -> list[Change]:
    """Compare every definition of the folder with its live build; read-only, reads no topic.

    Raises:
        UsageError: as `registry.load`.
    """
    defined = registry.load(settings.projections_dir)
    with connect(settings, "changes") as conn:
        conn.read_only = True
        return list(_changes(conn, defined.values()))


def _changes(conn: Connection, defined: Iterable[Registered]) -> Iterator[Change]:
    known = ledger.exists(conn)
    for registered in sorted(defined, key=lambda r: r.name):
        live = next(iter(builds.find(conn, registered.name, ["live"])), None) if known else None
        if live is None:
            yield Change(registered.name, None)
        elif live.definition_hash != registered.hash:
            held = builds.parts(conn, live.build)
            parts = () if held is None else tuple(differing(held, registered.parts))
            yield Change(registered.name, live.build, parts)


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the parts that are not the same, sorted; pure."""
    found = []
    for name in sorted({*before, *after}):
        if name not in before:
            found.append(f"{name} added")
        elif name not in after:
            found.append(f"{name} removed")
        elif before[name] != after[name]:
            found.append(f"{name} changed")
    return found
