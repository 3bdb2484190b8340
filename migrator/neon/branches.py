"""Branches that migrator makes of a database: Neon's own, or copies on a plain PostgreSQL.

Whoever makes them, they have a kind, a name, and a note that says whose they are. Nothing without such
a note is ever restored from, reset or deleted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from migrator.errors import UsageError

if TYPE_CHECKING:
    from migrator.settings import Settings

Kind = Literal["checkpoint", "preview", "rehearsal"]
NOTE = "migrator/"
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """A branch to be made. `note` is kept with it, beside its kind, its name and its database."""

    kind: Kind
    name: str
    expires_at: datetime | None = None
    note: Mapping[str, str] | None = None

    @property
    def has_compute(self) -> bool:
        return self.kind != "checkpoint"


@dataclass(frozen=True)
class Branch:
    """A branch that was made. `id` is Neon's, or the database's name; `shown` is for a person."""

    kind: Kind
    name: str
    id: str
    shown: str
    created_at: datetime
    expires_at: datetime | None
    note: Mapping[str, str]

    @property
    def token(self) -> str:
        """Tells this branch from others that had, or will have, its name."""
        made = f"{self.id} {self.created_at.isoformat()}"
        return hashlib.sha256(made.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Reach:
    """What a restore reaches beside the rows: every one of it is named before anything is done."""

    branch: str
    databases: tuple[str, ...]
    children: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    sessions: int = 0


@dataclass(frozen=True)
class Kept:
    """What was there before a restore to the checkpoint whose branch has this token."""

    kept_as: str
    token: str
    created_at: datetime


@dataclass(frozen=True)
class Restored:
    """What a restore left: `kept_as` is what was there before, `branch_id` where the database is now."""

    kept_as: str
    branch_id: str | None


class Branches(Protocol):
    """Makes branches of the settings' database, and knows those that it has made."""

    provider: Literal["neon", "postgresql"]

    def every(self, kind: Kind) -> list[Branch]:
        """Those of this database, oldest first. Read-only."""

    def create(self, wanted: Wanted) -> Branch:
        """Get or make it, and wait until it is there in full.

        Raises:
            Refused: there is one of that name that is not this database's.
            Busy: it cannot be made while others work here; says who.
        """

    def reset(self, branch: Branch, expires_at: datetime | None) -> Branch:
        """Make it anew what the database is now; connections to it are cut. May be done twice."""

    def settings(self, branch: Branch) -> Settings:
        """The settings that lead to it. Its connection is proven to be of this very branch.

        Raises:
            Refused: the connection leads elsewhere.
        """

    def delete(self, branch: Branch) -> bool:
        """Delete it; False if it was gone already.

        Raises:
            Refused: it is the default branch, protected, or a parent.
        """

    def reach(self) -> Reach:
        """What a restore of this database would reach. Read-only."""

    def restore(self, branch: Branch, keep_as: str) -> Restored:
        """Make the database what the branch is; sessions are cut. What it was is kept as `keep_as`.

        Raises:
            Refused: it may not be restored; nothing was changed.
        """

    def kept(self) -> list[Kept]:
        """What restores of this database have kept, oldest first. Read-only."""

    def kept_name(self, branch: Branch, at: datetime) -> str:
        """The name under which a restore to this checkpoint keeps what was there before."""

    def settled(self) -> str | None:
        """Wait until nothing is under way here; Neon's id of the branch that the database is on."""


def of(kind: str, name: str, database: str) -> dict[str, str]:
    """The note that says whose a branch is."""
    return {NOTE + "kind": kind, NOTE + "name": name, NOTE + "database": database}


def checked(name: str) -> str:
    """Give the name back.

    Raises:
        UsageError: it could not be a part of a branch's name.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a branch",
            expected="up to 40 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last",
        )
    return name


@contextmanager
def opened(settings: Settings) -> Iterator[Branches]:
    """Neon's branches where `[neon] project_id` is set, else copies on the same server.

    Raises:
        SettingsError: there is no API key.
    """
    if settings.neon.project_id is None:
        from migrator.neon.local_branches import LocalBranches

        yield LocalBranches(settings)
        return
    from migrator.neon import client
    from migrator.neon.neon_branches import NeonBranches

    with client.opened(settings.neon) as api:
        yield NeonBranches(settings, api)
