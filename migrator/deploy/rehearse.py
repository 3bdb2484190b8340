"""Rehearse the pending deployment on a throw-away copy, and keep what it has come to.

The plan is that of `deploy`. Only the copy is written, and at the end one row of migrator.rehearsal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from migrator.deploy import copies, plan, rollback
from migrator.deploy.copies import Copy, Maker
from migrator.deploy.plan import Plan
from migrator.errors import CannotConnect, MigratorError, Refused
from migrator.migrations.rehearse import Rehearsed
from migrator.migrations.stand import Problem, wal_written
from migrator.postgres import rehearsal
from migrator.postgres.connect import connect

if TYPE_CHECKING:
    from migrator.migrations.revision import Phase
    from migrator.projections.rebuild import Rebuilt
    from migrator.settings import Settings

Say = Callable[[str], None]
CANNOT_TELL = (
    "waits for locks and who waits behind them: nobody else uses a copy, so each was had at once",
    "what traffic costs: in production, readers and writers share the machine with the deployment",
    "cold reads: what a new copy has in the caches is not what production has there",
    "WAL of this run alone: the server counts what all of its databases write",
    "whether the old release is still connected when contract revisions are due",
)


@dataclass(frozen=True)
class Options:
    """What may be asked for. `allow` holds rules of `up` and of a rebuild's preflight alike."""

    phase: Phase = "expand"
    keep: bool = False
    allow: frozenset[str] = frozenset()
    max_lock_ms: float | None = None
    max_rebuild_s: float | None = None
    accept_diff: str | None = None


@dataclass(frozen=True)
class Replay:
    """The rebuild of all changed projections. What it did is None where it failed.

    `went_back` says whether the swap back to the builds before was proven, or why not.
    """

    projections: tuple[Rebuilt, ...]
    seconds: float
    steps: dict[str, float]
    wal_bytes: int
    held_ms: float | None = None
    stall_ms: float | None = None
    went_back: str = "not reached"


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal has found. `copy` is None where there was nothing to rehearse."""

    plan: Plan
    copy: Copy | None
    revisions: tuple[Rehearsed, ...] = ()
    replay: Replay | None = None
    problems: tuple[Problem, ...] = ()
    not_reached: tuple[str, ...] = ()
    seconds: float = 0.0
    kept: bool = False
    number: int | None = None

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def cannot_tell(self) -> tuple[str, ...]:
        return (*(self.copy.cannot_tell if self.copy else ()), *CANNOT_TELL)

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": "passed" if self.passed else "failed",
            "plan_hash": self.plan.hash,
            "plan": self.plan.as_json(),
            "copy": self.copy and {"name": self.copy.name, "how": self.copy.how, "kept": self.kept},
            "revisions": [each.as_json() for each in self.revisions],
            "rebuild": self.replay and asdict(self.replay),
            "problems": [asdict(each) for each in self.problems],
            "not_reached": list(self.not_reached),
            "cannot_tell": list(self.cannot_tell),
            "seconds": self.seconds,
        }


class NotRecorded(Exception):
    """The rehearsal is over, and its outcome could not be written to the database; the cause says why."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__("the outcome of the rehearsal was not recorded")
        self.rehearsal = rehearsal


def rehearse(
    settings: Settings,
    maker: Maker,
    options: Options = Options(),
    *,
    say: Say = lambda _text: None,
) -> Rehearsal:
    """Carry the pending deployment out on a copy, and record the outcome with the plan's hash.

    The copy is dropped at the end, whatever happens, unless it is to be kept. Topics are only read, by no
    consumer group. With nothing pending, nothing is copied and nothing recorded.

    Raises:
        UsageError, Refused: the plan cannot be made, or would be refused; nothing was copied.
        Busy, CannotConnect, MigratorError: the copy cannot be made, or its server is lost or full.
        NotRecorded: the outcome could not be written.
    """
    planned = plan.read(settings, phase=options.phase)
    if planned.is_empty:
        return Rehearsal(planned, None)
    if planned.projections:
        _ = settings.kafka_config  # before anything is copied
    began = time.monotonic()
    with copies.made(maker, keep=options.keep, say=say) as copy:
        work = _Work(settings, copy, planned, options, say)
        work.refuse_another_plan()
        work.revisions()
        work.rebuild()
    done = Rehearsal(
        planned,
        copy,
        revisions=work.done,
        replay=work.replay,
        problems=tuple(work.problems),
        not_reached=work.not_reached,
        seconds=round(time.monotonic() - began, 1),
        kept=options.keep,
    )
    return _recorded(settings, done)


def _recorded(settings: Settings, done: Rehearsal) -> Rehearsal:
    outcome: rehearsal.Outcome = "passed" if done.passed else "failed"
    try:
        with connect(settings, "rehearse") as conn:
            number = rehearsal.record(
                conn, done.plan.hash, outcome, done.as_json(), round(done.seconds * 1000)
            )
    except Exception as exc:
        raise NotRecorded(done) from exc
    return Rehearsal(**{**vars(done), "number": number})


@dataclass
class _Work:
    """One rehearsal on its copy."""

    settings: Settings
    copy: Copy
    planned: Plan
    options: Options
    say: Say
    done: tuple[Rehearsed, ...] = ()
    replay: Replay | None = None
    problems: list[Problem] = field(default_factory=list)
    not_reached: tuple[str, ...] = ()

    def refuse_another_plan(self) -> None:
        """Make sure that the copy is of the moment that the plan is of."""
        now = plan.read(self.copy.settings, phase=self.options.phase)
        if now.hash != self.planned.hash:
            raise Refused(
                "another deployment has changed the database while it was copied: the copy has another "
                "plan",
                expected="nobody who deploys meanwhile",
                next_step="migrator rehearse again",
            )

    def revisions(self) -> None:
        """Apply and prove the pending revisions."""
        if not self.planned.revisions:
            return
        from migrator.migrations import check, history, phase_check, rehearse, up

        files = history.read(self.settings)
        found = up.survey(self.copy.settings, files, phase=self.options.phase)
        check.refuse_incomplete(files, found.todo)
        self.done = rehearse.rehearse(
            self.copy.settings,
            files,
            found,
            max_lock_ms=self.options.max_lock_ms or self.settings.rehearsal.max_lock_ms,
            shares_server=self.copy.shares_server,
            allow=self.options.allow.intersection(phase_check.ALLOWED),
            say=self.say,
        )
        self.problems += [problem for each in self.done for problem in each.problems]
        reached = {each.revision.id for each in self.done}
        self.not_reached = tuple(r.id for r in found.todo if r.id not in reached)

    def rebuild(self) -> None:
        """Rebuild the changed projections from the real topics, check them, cut over, and go back."""
        names = [each.projection for each in self.planned.projections]
        if not names:
            return
        from migrator.migrations import phase_check
        from migrator.projections import rebuild

        self.say(f"rebuilding {', '.join(names)} in the copy")
        options = rebuild.Options(
            # A copy without rows has not what an unfinished build has read.
            restart=not self.copy.has_rows,
            allow=self.options.allow.difference(phase_check.ALLOWED),
            accept_diff=self.options.accept_diff,
        )
        steps: dict[str, float] = {}
        report = None
        began, wal_before = time.monotonic(), self._wal()
        try:
            report = rebuild.rebuild(self.copy.settings, names, options)
            steps = report.seconds
        except CannotConnect:
            raise
        except MigratorError as exc:
            self.problems += _failed_rebuild(names, exc)
        seconds = round(time.monotonic() - began, 3)
        self._note_slow(names, seconds, steps)
        swapped = report.swapped if report else None
        self.replay = Replay(
            projections=report.projections if report else (),
            seconds=seconds,
            steps=steps,
            wal_bytes=self._wal() - wal_before,
            held_ms=round(swapped.held_ms, 1) if swapped else None,
            stall_ms=round(swapped.stall_ms, 1) if swapped else None,
            went_back=self._gone_back([m.incoming.projection for m in swapped.moves if m.outgoing])
            if swapped
            else "not reached",
        )

    def _note_slow(self, names: list[str], seconds: float, steps: dict[str, float]) -> None:
        bound = self.options.max_rebuild_s or self.settings.rehearsal.max_rebuild_s
        if bound is not None and seconds > bound:
            where = ", ".join(f"{step} {took:.1f} s" for step, took in steps.items())
            self.problems.append(
                Problem(
                    "slow",
                    ", ".join(names),
                    f"the rebuild of {', '.join(names)} took {seconds:,.1f} s{': ' if where else ''}{where}",
                    f"at most {bound:,.1f} s (--max-rebuild-s, [rehearsal] max_rebuild_s)",
                    "give it more [projections] workers and memory_mb, or allow it more time",
                )
            )

    def _gone_back(self, replaced: list[str]) -> str:
        """Prove the swap back, as `rollback --instant` does it: the old definition is not here."""
        if not replaced:
            return "each is the first build of its projection: there is nothing to go back to"
        try:
            planned = rollback.plan(self.copy.settings, projections=replaced)
            rollback.rollback(self.copy.settings, planned, reason="rehearsal", instant=True)
        except CannotConnect:
            raise
        except MigratorError as exc:
            self.problems.append(
                Problem(
                    "rollback",
                    ", ".join(replaced),
                    f"the swap back of {', '.join(replaced)} fails: {exc.found}",
                    exc.expected or "a cut-over that can be undone",
                    exc.next_step,
                )
            )
            return "failed"
        return "proven"

    def _wal(self) -> int:
        with connect(self.copy.settings, "rehearse", autocommit=True) as conn:
            return wal_written(conn)


def _failed_rebuild(names: list[str], exc: MigratorError) -> list[Problem]:
    """One problem for each failing check, else one for whatever stopped the rebuild."""
    from migrator.projections import checks

    again = "correct the projection and rehearse again; --keep leaves the copy to look at"
    failed = [each for each in exc.data.get("report") or () if each["verdict"] == "failed"]
    if failed:
        return [
            Problem(
                "check",
                f"{each['projection']}: {each['check']}",
                f"the check {each['check']!r} of {each['projection']} fails: {each['found']}",
                "every check to pass before anybody reads the new build",
                f'{again}; where live is what is wrong: --accept-diff "why"'
                if each["check"] == checks.DIFF
                else again,
            )
            for each in failed
        ]
    step = exc.next_step if "--allow" in exc.next_step else again
    expected = exc.expected or "a rebuild that comes to its end"
    return [Problem("rebuild", ", ".join(names), exc.found, expected, step)]
