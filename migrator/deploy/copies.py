"""A throw-away copy of a database: the seam between a rehearsal and who can make one.

A Maker that is added (a Neon branch, say) has a name in MAKERS and passes tests/integration/test_copies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from migrator.settings import Settings

PREFIX = "migrator_rehearsal_"


@dataclass(frozen=True)
class Copy:
    """A copy that was made. `settings` lead to it and are otherwise those of the original.

    `how` is for a person: what was copied, and by what. `shares_server` says that other databases lie
    on its server, which roles and the like belong to. `cannot_tell` is what this kind of copy hides.
    """

    name: str
    settings: Settings
    how: str
    shares_server: bool
    has_rows: bool = True
    cannot_tell: tuple[str, ...] = ()


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

    def keep(self, copy: Copy) -> None:
        """Let no `sweep` drop it."""


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
    from migrator.errors import MigratorError

    try:
        maker.drop(copy)
    except MigratorError as exc:
        say(f"warning: {copy.name} could not be dropped: {exc.found}; the next rehearsal drops it")
