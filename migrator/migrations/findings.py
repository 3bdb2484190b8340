"""What verify finds: one record for each thing that is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from migrator.errors import MigratorError, Refused
from migrator.migrations.applied import Applied
from migrator.migrations.history import History
from migrator.migrations.scratch import Produced
from migrator.postgres.ledger import Entry
from migrator.postgres.snapshot import Snapshot
from migrator.settings import Settings

Check = Literal["chain", "rollback scripts", "files", "drift", "indexes", "constraints"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be; one that is only worth knowing is no problem."""

    check: Check
    subject: str
    found: str
    expected: str
    next_step: str
    revision: str | None = None
    is_problem: bool = True


@dataclass(frozen=True)
class Checked:
    """What one check looked at; `skipped` says why it did not look.

    `as_asked` is one that was skipped because the command was told so, not for want of a way.
    """

    check: Check
    said: str
    skipped: str | None = None
    next_step: str = ""
    as_asked: bool = False


@dataclass
class State:
    """What is compared: read from the database in one snapshot, and from the files."""

    settings: Settings
    applied: Applied
    live: Snapshot
    left_out: list[str]
    version_problem: Refused | None
    files: History | None = None
    files_problem: MigratorError | None = None
    produced: Produced | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.applied.entries


Outcome = tuple[Checked, list[Finding]]
