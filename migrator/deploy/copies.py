"""A throw-away copy of a database: the seam between a rehearsal and who can make one.

tests/integration/test_copies.py is one suite for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from migrator.errors import MigratorError, UsageError

if TYPE_CHECKING:
    from migrator.settings import Settings

By = Literal["branch", "template", "dump", "schema"]


@dataclass(frozen=True)
class Copy:
    """A copy that was made. `settings` lead to it and are otherwise those of the original.

    `how` is for a person: what was copied, and by what. `shares_server` says that other databases lie
    on its server, which roles and the like belong to. `cannot_tell` is what this kind of copy hides,
    `to_drop` what to do with one that is kept.
    """

    name: str
    settings: Settings
    how: str
    shares_server: bool
    has_rows: bool = True
    cannot_tell: tuple[str, ...] = ()
    to_drop: str = ""


class Maker(Protocol):
    """Makes copies, and knows the ones that it made."""

    def sweep(self) -> list[str]:
        """Drop the copies of runs that are gone, but those that were to be kept; return their names.

        A copy whose run still goes on is left alone.
        """

    def make(self, say: Callable[[str], None]) -> Copy:
        """Make a copy. Where that fails, nothing of it is left, or the next `sweep` finds it.

        Raises:
            UsageError, Refused, Busy, CannotConnect, MigratorError: it cannot be made; says why.
        """

    def drop(self, copy: Copy) -> None:
        """Drop it, whoever is connected to it. Idempotent.

        Raises:
            MigratorError: it could not be dropped; the next `sweep` will.
        """

    def keep(self, copy: Copy, /) -> None:
        """Let no `sweep` drop it."""


@contextmanager
def opened(settings: Settings, by: By | None, *, keep: bool) -> Iterator[Maker]:
    """Who makes copies of the settings' database: on Neon a branch, elsewhere TEMPLATE, or as `by` says.

    Raises:
        UsageError: a branch is asked for, and `[neon] project_id` is not set.
    """
    if by == "branch" and settings.neon.project_id is None:
        raise UsageError(
            "--copy branch needs Neon, and [neon] project_id is not set",
            expected="--copy template, dump or schema",
        )
    if by in (None, "branch") and settings.neon.project_id is not None:
        from migrator.deploy.branch_copies import BranchCopies
        from migrator.neon import branches

        with branches.opened(settings) as found:
            yield BranchCopies(settings, found, keep=keep)
        return
    from migrator.deploy.local_copies import LocalCopies

    yield LocalCopies(settings, "template" if by is None or by == "branch" else by)


@contextmanager
def made(maker: Maker, *, keep: bool, say: Callable[[str], None]) -> Iterator[Copy]:
    """A copy for the block: dropped at its end whatever happens, unless it is to be kept.

    What killed runs have left is dropped first.
    """
    for name in maker.sweep():
        say(f"dropped {name}, which a run that is gone had left")
    copy = maker.make(say)
    try:
        yield copy
    except BaseException:
        _drop(maker, copy, say)
        raise
    if keep:
        maker.keep(copy)
    else:
        _drop(maker, copy, say)


def _drop(maker: Maker, copy: Copy, say: Callable[[str], None]) -> None:
    try:
        maker.drop(copy)
    except MigratorError as exc:
        say(f"warning: {copy.name} could not be dropped: {exc.found}; the next rehearsal drops it")
