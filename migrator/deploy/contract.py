"""What must be gone before contract: pending expand work, the old release, builds kept to go back to."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from migrator.errors import Refused
from migrator.postgres.connect import connect

if TYPE_CHECKING:
    from migrator.settings import Settings

ARCHIVED_BUILD = "archived-build"


def refuse(settings: Settings, *, allow: Collection[str], reason: str | None) -> None:
    """Refuse a contract deployment whose time has not come; read-only.

    Raises:
        Refused: expand revisions or changed projections are pending, sessions of the old release are
            connected, or an archived build is kept for a rollback; each is named.
    """
    _refuse_pending(settings)
    _refuse_old_release(settings, allow, reason)
    if ARCHIVED_BUILD not in allow:
        _refuse_archived(settings)


def _refuse_pending(settings: Settings) -> None:
    from migrator.deploy import plan

    left = plan.read(settings, phase="expand")
    if left.is_empty:
        return
    names = [f"revision {each.revision}" for each in left.revisions]
    names += [f"projection {each.projection}" for each in left.projections]
    raise Refused(
        f"what comes before contract is pending: {', '.join(names)}",
        expected="a release that is rolled out and has no expand work left",
        next_step="migrator deploy, roll the release out, then migrator deploy --phase contract",
        pending=names,
    )


def _refuse_old_release(settings: Settings, allow: Collection[str], reason: str | None) -> None:
    if not settings.migrations_dir.is_dir():
        return
    from migrator.migrations import history, phase_check, up

    files = history.read(settings)
    found = up.survey(settings, files, phase="contract")
    rules = [name for name in allow if name != ARCHIVED_BUILD]
    phase_check.prove(settings, files, found, allow=rules, reason=reason).glance(found.todo)


def _refuse_archived(settings: Settings) -> None:
    from migrator.postgres import ledger
    from migrator.projections import build as builds
    from migrator.projections import prune

    with connect(settings, "plan") as conn:
        conn.read_only = True
        if not ledger.exists(conn):
            return
        needed = prune.needed(conn)
        kept = [b for b in builds.every(conn) if b.state == "archived" and b.build in needed]
    if not kept:
        return
    names = ", ".join(f"build {each.build} of {each.projection}" for each in kept)
    flags = " ".join(f"--projection {name}" for name in sorted({b.projection for b in kept}))
    raise Refused(
        f"{names}: kept to go back to, and the release that reads it cannot run after contract",
        expected="no archived build that a rollback would go back to",
        next_step="when nobody will go back: migrator prune --keep 0 --give-up-rollback "
        f'{flags}; to keep it all the same: --allow {ARCHIVED_BUILD} --reason "..."',
        builds=[each.build for each in kept],
    )
