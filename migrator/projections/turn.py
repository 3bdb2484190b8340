"""One command at a time makes, moves or drops the builds of a projection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from migrator.postgres.locks import deployer_lock

if TYPE_CHECKING:
    from migrator.settings import Settings


@contextmanager
def turn(settings: Settings, projections: Iterable[str]) -> Iterator[None]:
    """Hold the projections for this command.

    Raises:
        Busy: another command holds one of them; the message names who runs it.
    """
    with ExitStack() as stack:
        # In one order, so that two commands cannot deadlock.
        for name in sorted(set(projections)):
            stack.enter_context(deployer_lock(settings, f"rebuild {name}", deadline_s=0))
        yield
