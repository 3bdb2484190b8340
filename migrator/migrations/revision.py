"""A revision as its file declares it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Phase = Literal["expand", "contract"]
PHASES: tuple[Phase, ...] = ("expand", "contract")


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One file of versions/, with the rollback script beside it.

    What is None was not declared: a file may be older than migrator, so only a pending revision
    must be complete (`check.refuse_incomplete`), and not even that if it is `exempt`: older than
    [migrations] rules_from. `requires` is Alembic's depends_on.
    """

    id: str
    parents: tuple[str, ...]
    message: str
    phase: str | None
    path: Path
    source_hash: str
    rollback_path: Path
    rollback_script: str | None
    irreversible: str | None
    transactional: bool
    backfills: bool = False
    has_upgrade: bool
    requires: tuple[str, ...] = ()
    exempt: bool = False

    @property
    def revises(self) -> str | None:
        """What it stands on, as the ledger writes it: with commas where that is several."""
        return ", ".join(self.parents + self.requires) or None

    def __str__(self) -> str:
        return f"{self.id} {self.message}".rstrip()
