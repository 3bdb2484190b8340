"""Rehearse revisions on a copy: apply, undo by the rollback script, compare, apply again.

What is measured the first time is what production should expect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from migrator.errors import MigratorError
from migrator.migrations import phase_check, up
from migrator.migrations.history import History
from migrator.migrations.plan import Plan
from migrator.migrations.proof import Proof
from migrator.migrations.revision import Revision
from migrator.migrations.stand import Act, Problem, Stand, State, refuse_lost
from migrator.postgres import relations
from migrator.postgres.locks import deployer_lock
from migrator.settings import Settings


@dataclass(frozen=True)
class Rehearsed:
    """One revision. `rollback` is None where its script was not run, and `proof` says what came of it."""

    revision: Revision
    up: Act | None
    rollback: Act | None
    proof: str
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision.id,
            "message": self.revision.message,
            "phase": self.revision.phase,
            "up": self.up and self.up.as_json(),
            "rollback": self.rollback and self.rollback.as_json(),
            "proof": self.proof,
        }


def rehearse(
    copy: Settings,
    files: History,
    found: Plan,
    *,
    max_lock_ms: float,
    shares_server: bool,
    allow: Collection[str] = (),
    say: Callable[[str], None] = lambda _text: None,
) -> tuple[Rehearsed, ...]:
    """Apply the plan's revisions to the copy, each proven by its rollback script; all stay applied.

    A revision that fails ends it: those after it stand on it. `shares_server` says that other
    databases lie on the copy's server; what acts on these is passed over.

    Raises:
        CannotConnect: the server is lost. MigratorError: it has no room left.
        Refused, Busy: as `up`, before the first revision.
    """
    if not found.todo:
        return ()
    permits = phase_check.prove(copy, files, found, allow=allow, reason="rehearsal")
    with deployer_lock(copy, up.LOCK) as fence:
        stand = Stand(copy, files, fence, permits, uuid4(), shares_server)
        stand.begin()
        done: list[Rehearsed] = []
        goes_on = True
        for revision in found.todo:
            if goes_on:
                say(f"rehearsing {revision}")
                one, goes_on = _one(stand, revision, max_lock_ms)
                done.append(one)
    return tuple(done)


def _one(stand: Stand, revision: Revision, max_lock_ms: float) -> tuple[Rehearsed, bool]:
    """Rehearse one revision; also whether the next one can follow."""
    before = stand.now or stand.look()
    try:
        first, entry = stand.up(revision, before)
    except MigratorError as exc:
        refuse_lost(exc)
        problem = _failed(revision, exc)
        return Rehearsed(revision, None, None, "not reached", (problem,)), False
    after = stand.now = stand.look()
    problems = [*_long_locks(revision, first, max_lock_ms), *_invalid(before, after)]
    proof = Proof(stand, revision, before, after, first, entry)
    proof.carry_out()
    stand.read_rows(proof.touched())
    problems += proof.problems
    done = Rehearsed(revision, first, proof.act, proof.verdict, tuple(problems))
    return done, not proof.is_stuck


def _failed(revision: Revision, exc: MigratorError) -> Problem:
    return Problem(
        "revision",
        revision.id,
        exc.found,
        exc.expected or "a revision that can be applied",
        f"correct {revision.path}, then rehearse again",
    )


def _long_locks(revision: Revision, act: Act, max_lock_ms: float) -> Iterator[Problem]:
    for held in act.measured.locks:
        if held.mode.blocks_writers and held.held_ms > max_lock_ms and held.kind != "sequence":
            who = "read or write" if held.mode.blocks_readers else "write"
            by = f"\n  taken by: {held.statement}" if held.statement else ""
            yield Problem(
                "lock",
                revision.id,
                f"revision {revision.id} holds {held.mode} on {held.kind} {held.relation} for up to "
                f"{held.held_ms:,.0f} ms, and nobody can {who} it meanwhile{by}",
                f"at most {max_lock_ms:,.0f} ms (--max-lock-ms, [rehearsal] max_lock_ms)",
                f"migrator lint {revision.id} says which way is safe; split what takes long from what "
                "locks",
            )


def _invalid(before: State, after: State) -> Iterator[Problem]:
    for index in relations.turned_invalid(before.relations, after.relations):
        yield Problem(
            "index",
            index.name,
            f"index {index.name} is INVALID afterwards",
            "a valid index",
            "look at what kept it from being built: a unique index needs unique rows",
        )
