"""Previews: a branch for each pull request, with its revisions and projections, made anew at each push.

A preview begins as what the database is now, every time: half of an earlier push's revisions, or
rows that were tried out in it, are not there any more.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import SecretStr

from migrator.errors import MigratorError, Refused, UsageError
from migrator.neon import branches
from migrator.neon.branches import NOTE, Branch, Branches, Wanted
from migrator.postgres.connect import as_url

if TYPE_CHECKING:
    from migrator.settings import Settings

REPOSITORY = NOTE + "repository"
_LONGEST = 40


@dataclass(frozen=True)
class Preview:
    """A preview that is ready. `url` leads to it, with its password."""

    name: str
    branch: Branch
    url: SecretStr
    is_new: bool
    applied: tuple[str, ...]
    rebuilt: tuple[str, ...]


@dataclass(frozen=True)
class Swept:
    """What a sweep did: names, or names with the reason."""

    deleted: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


def create(
    settings: Settings,
    *,
    name: str | None = None,
    ttl: timedelta | None = None,
    told: Callable[[str], None] = lambda _line: None,
) -> Preview:
    """Get or make the preview, as the database is now, and apply what this checkout has pending.

    Where a revision or a rebuild fails the branch stays, to be looked at; the next run begins anew.

    Raises:
        UsageError: nothing tells the pull request, and no name is given.
        Refused: the connection leads to another branch, or the preview is another repository's;
            nothing was written.
        As `up.up` and `rebuild.rebuild`, on the preview.
    """
    name = branches.checked(name) if name else default_name()
    expires_at = datetime.now(UTC) + ttl if ttl else None
    with branches.opened(settings) as made_by:
        branch, is_new = _fresh(made_by, name, expires_at)
        told(f"{branch.shown} is {'made' if is_new else 'as the database is now'}")
        led = made_by.settings(branch)
    applied = _applied(led, told)
    rebuilt = _rebuilt(led, name, told)
    return Preview(name, branch, SecretStr(as_url(led.conninfo)), is_new, applied, rebuilt)


def every(settings: Settings) -> list[Branch]:
    """The previews of this database, oldest first; read-only."""
    with branches.opened(settings) as made_by:
        return made_by.every("preview")


def delete(settings: Settings, name: str) -> bool:
    """Delete a preview; False if there is none, as after a pull request that was closed twice."""
    with branches.opened(settings) as made_by:
        found = _held(made_by, name)
        return found is not None and made_by.delete(found)


def to_sweep(
    found: Sequence[Branch],
    *,
    older_than: timedelta | None = None,
    all_of_them: bool = False,
    keep: Collection[str] = (),
) -> list[Branch]:
    """Choose those whose time is up, those older than so much, or all; never one to `keep`.

    Pure but for the clock.
    """
    now = datetime.now(UTC)
    return [
        branch
        for branch in found
        if branch.name not in keep
        and (
            all_of_them
            or (branch.expires_at is not None and branch.expires_at <= now)
            or (older_than is not None and branch.created_at <= now - older_than)
        )
    ]


def sweep(settings: Settings, chosen: Sequence[Branch]) -> Swept:
    """Delete them one by one, and go on where one cannot be.

    Only what migrator has made as a preview of this database is ever looked at; of that, a default
    or protected branch, or one with children, stays and is named.
    """
    deleted, failed = [], []
    with branches.opened(settings) as made_by:
        for branch in chosen:
            try:
                made_by.delete(branch)
            except MigratorError as exc:
                failed.append((branch.name, exc.found))
            else:
                deleted.append(branch.name)
    return Swept(tuple(deleted), tuple(failed))


def default_name() -> str:
    """`pr-123` in a pull request's workflow, else the name of the git branch.

    Raises:
        UsageError: neither is known.
    """
    found = re.fullmatch(r"refs/pull/(\d+)/(merge|head)", os.environ.get("GITHUB_REF", ""))
    if found:
        return f"pr-{found[1]}"
    if ref := os.environ.get("GITHUB_HEAD_REF") or os.environ.get("GITHUB_REF_NAME"):
        return _slug(ref)
    raise UsageError(
        "nothing tells which pull request this is",
        expected="GITHUB_REF to be refs/pull/NUMBER/merge, or a name",
        next_step="migrator preview create --name NAME",
    )


def _slug(ref: str) -> str:
    """A name for a git branch; where much of it is lost, a hash tells it from others."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", ref.lower()).strip("._-")
    if plain == ref and len(plain) <= _LONGEST:
        return plain
    digest = hashlib.sha256(ref.encode()).hexdigest()[:8]
    return f"{plain[: _LONGEST - 9].strip('._-')}-{digest}".strip("-")


def _fresh(made_by: Branches, name: str, expires_at: datetime | None) -> tuple[Branch, bool]:
    ours = os.environ.get("GITHUB_REPOSITORY")
    found = _held(made_by, name)
    if found is None:
        note = {REPOSITORY: ours} if ours else {}
        return made_by.create(Wanted("preview", name, expires_at, note)), True
    theirs = found.note.get(REPOSITORY)
    if ours and theirs and ours != theirs:
        raise Refused(
            f"the preview {name} is of {theirs}",
            expected=f"one of {ours}, or none of that name",
            next_step="migrator preview create --name NAME, with another name",
        )
    return made_by.reset(found, expires_at), False


def _held(made_by: Branches, name: str) -> Branch | None:
    return next((b for b in made_by.every("preview") if b.name == name), None)


def _applied(settings: Settings, told: Callable[[str], None]) -> tuple[str, ...]:
    from migrator.migrations.up import up

    if not settings.migrations_dir.is_dir():
        return ()
    done = up(settings)
    told(
        f"{len(done.applied)} revisions applied; the preview is at {done.version or 'no revision'}"
    )
    return tuple(each.revision for each in done.applied)


def _rebuilt(settings: Settings, name: str, told: Callable[[str], None]) -> tuple[str, ...]:
    """Rebuild what this checkout defines otherwise, from the real topics, which are only read."""
    if not settings.projections_dir.is_dir():
        return ()
    from migrator.projections import changes, rebuild

    changed = changes.find(settings)
    if not changed:
        return ()
    for each in changed:
        told(f"{each.projection}: {each.why}")
    # A preview is there to look at the difference.
    options = rebuild.Options(accept_diff=f"preview {name}")
    report = rebuild.rebuild(settings, [c.projection for c in changed], options)
    for built in report.projections:
        told(f"{built.projection} rebuilt: {built.rows:,} rows of {built.events:,} events")
    return tuple(built.projection for built in report.projections)
