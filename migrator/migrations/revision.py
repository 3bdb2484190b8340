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
    must be complete (`check.refuse_incomplete`).
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

    @property
    def revises(self) -> str | None:
        return self.parents[0] if self.parents else None

    def __str__(self) -> str:
        return f"{self.id} {self.message}".rstrip()
