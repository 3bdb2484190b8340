"""Which releases of the application are connected: a contract revision waits for the old to go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from migrator.errors import SettingsError
from migrator.postgres.connect import Connection
from migrator.settings import Release

PAUSE_S = 0.25
_SHOWN = 5
# backend_type is NULL where the session's role hides it from ours.
_SESSIONS = """
SELECT pid, usename, application_name, state, client_addr::text
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'
ORDER BY pid
"""


@dataclass(frozen=True)
class Session:
    """A session of the application; `version` is None where it names none."""

    pid: int
    role: str | None
    version: str | None
    state: str | None
    client: str | None

    def __str__(self) -> str:
        where = f" from {self.client}" if self.client else ""
        return f"pid {self.pid}{where}, role {self.role}, {self.state or 'state hidden from us'}"


@dataclass(frozen=True)
class Seen:
    """What one look has found: sessions of other versions, and those whose name is kept from us."""

    application: str
    deployed: str
    old: tuple[Session, ...]
    hidden: int = 0

    @property
    def is_clear(self) -> bool:
        return not self.old and not self.hidden

    def __str__(self) -> str:
        lines = []
        if self.old:
            many = f"{len(self.old)} sessions" if len(self.old) > 1 else "a session"
            lines.append(
                f"{many} of {self.application} with another version than {self.deployed}, "
                "which is deployed:"
            )
        for version in sorted({session.version or "" for session in self.old}):
            those = [session for session in self.old if (session.version or "") == version]
            lines.append(f"  {version or 'no version named'}: {len(those)}")
            lines += [f"    {session}" for session in those[:_SHOWN]]
            if len(those) > _SHOWN:
                lines.append(f"    and {len(those) - _SHOWN} more")
        if self.hidden:
            lines.append(
                f"{self.hidden} sessions do not show us their application_name: whose they are "
                "cannot be told"
            )
        return "\n".join(lines)


def version_of(application_name: str, application: str) -> tuple[bool, str | None]:
    """Whether a session of this name is of the application, and of which version.

    It names itself NAME/VERSION; what follows a blank is not part of it (PgBouncer adds the host).
    """
    name, _, _ = application_name.partition(" ")
    if name == application:
        return True, None
    of_it = name.startswith(f"{application}/")
    return of_it, name.removeprefix(f"{application}/") or None if of_it else None


def look(conn: Connection, release: Release) -> Seen:
    """Read pg_stat_activity once; read-only. The connection is in autocommit.

    Raises:
        SettingsError: an application is set, and no version.
    """
    assert release.application is not None
    deployed = _deployed(release)
    old, hidden = [], 0
    for pid, role, name, state, client in conn.execute(_SESSIONS).fetchall():
        if name is None:
            hidden += 1
            continue
        of_it, version = version_of(name, release.application)
        if of_it and version != deployed:
            old.append(Session(pid, role, version, state, client))
    return Seen(release.application, deployed, tuple(old), hidden)


def watch(
    conn: Connection, release: Release, *, pause: Callable[[float], None] = time.sleep
) -> Seen:
    """Look again and again for `watch_s` seconds: a pool that reconnects is away for a moment.

    Returns what was seen as soon as it is not clear, else the last look.

    Raises:
        SettingsError: as `look`.
    """
    left = release.watch_s
    seen = look(conn, release)
    while seen.is_clear and left > 0:
        pause(min(PAUSE_S, left))
        left -= PAUSE_S
        seen = look(conn, release)
    return seen


def _deployed(release: Release) -> str:
    if release.version is None:
        raise SettingsError(
            f"[release] application is {release.application!r}, but no version is set",
            expected="the version that this deployment rolls out, as its sessions name it",
            next_step="MIGRATOR_RELEASE_VERSION=... migrator up (docs/phases.md)",
        )
    return release.version
