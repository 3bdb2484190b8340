"""Make verified builds live by hand: the last step of rebuilds that stopped before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from migrator.errors import Refused, UsageError
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections import checks, swap, swap_sql, tail
from migrator.projections.build import Build
from migrator.projections.move import move_for
from migrator.projections.swap import Swapped
from migrator.projections.turn import turn

if TYPE_CHECKING:
    from migrator.settings import Settings


@dataclass(frozen=True)
class CutOver:
    """What a cut-over did; `swapped` is None where every build was live before."""

    run: UUID
    builds: tuple[Build, ...]
    swapped: Swapped | None


def plan(settings: Settings, numbers: Sequence[int]) -> list[str]:
    """The swap's SQL, a statement each; nothing where every build is live. Read-only.

    Raises:
        UsageError, Refused: as `cut_over`.
    """
    with connect(settings, "plan") as conn:
        conn.read_only = True
        moves = [move_for(conn, each) for each in _chosen(conn, numbers) if each.state != "live"]
        return swap_sql.script(conn, settings, moves) if moves else []


def cut_over(settings: Settings, numbers: Sequence[int], *, run: UUID | None = None) -> CutOver:
    """Make the builds live at one instant, and record it; those that are live stay so.

    `run` is what the ledger's entries carry.

    Raises:
        UsageError: there is no such build, or two of them are of one projection.
        Refused: one is neither verified nor live, or something cannot be carried over.
        Busy: a rebuild of such a projection is running, or the swap found no quiet moment.
    """
    with connect(settings, "cut-over", statement_timeout_ms=0) as conn:
        conn.autocommit = True
        names = [each.projection for each in _chosen(conn, numbers)]
        with turn(settings, names):
            chosen = _chosen(conn, numbers)
            moves = [move_for(conn, each) for each in chosen if each.state != "live"]
            run = run or uuid4()
            moves = tail.with_definitions(settings, moves)
            reason = checks.accepted(conn, [move.incoming for move in moves])
            swapped = swap.swap(conn, settings, moves, run=run, reason=reason) if moves else None
        return CutOver(run, tuple(chosen), swapped)


def _chosen(conn: Connection, numbers: Sequence[int]) -> list[Build]:
    is_there = ledger.exists(conn)
    chosen = []
    for number in dict.fromkeys(numbers):
        build = builds.numbered(conn, number) if is_there else None
        if build is None:
            raise UsageError(
                f"there is no build {number}", next_step="migrator status shows every build"
            )
        chosen.append(build)
    for each in chosen:
        others = [o.build for o in chosen if o.projection == each.projection]
        if len(others) > 1:
            raise UsageError(
                f"builds {' and '.join(map(str, others))} are both of {each.projection}",
                expected="one build of a projection",
            )
        if each.state not in ("verified", "live"):
            raise _refused(each)
    return chosen


def _refused(build: Build) -> Refused:
    name = build.projection
    ways = {
        "archived": f"migrator rollback --projection {name} goes back to the build before the live one",
        "failed": f"correct the projection, then migrator rebuild-projections --projection {name}",
    }
    again = f"migrator rebuild-projections --projection {name} builds it to its end, or anew"
    return Refused(
        f"build {build.build} of {name} is {build.state}",
        expected="a verified build",
        next_step=ways.get(build.state, again),
        build=build.build,
        state=build.state,
    )
