"""Prove a rollback script: run it, compare with what was before, and apply the revision again.

The comparison is made inside the script's transaction: one that is wrong is taken back there, and the
next revision is rehearsed on what production will have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from migrator.errors import MigratorError
from migrator.migrations import drift, inside, scripts, undo
from migrator.migrations.lint.locks import Mode
from migrator.migrations.measure import Measure
from migrator.migrations.revision import Revision
from migrator.migrations.stand import (
    Act,
    Problem,
    Stand,
    State,
    commits_on_its_way,
    refuse_lost,
    wal_written,
)
from migrator.postgres import fingerprint, ledger, snapshot
from migrator.postgres.connect import Connection

SHOWN = 5


class _WrongScript(Exception):
    """A rollback script does not lead back; what it did is taken back."""


@dataclass
class Proof:
    """One revision's rollback script: run, compared with what was before, and taken back."""

    stand: Stand
    revision: Revision
    before: State
    after: State
    first: Act
    entry: int
    act: Act | None = None
    verdict: str = ""
    is_stuck: bool = False
    problems: list[Problem] = field(default_factory=list)
    _wrong: list[str] = field(default_factory=list)
    _measure: Measure | None = None

    def carry_out(self) -> None:
        script = self.revision.rollback_script
        if self.revision.irreversible is not None:
            self.verdict = f"irreversible: {self.revision.irreversible}"
        elif script is None:
            self.verdict = "there is no script"
        else:
            self._prove(script)

    def touched(self) -> list[str]:
        """The tables whose rows may be others than before; all, where that is not known exactly."""
        known = self.stand.columns
        if commits_on_its_way(self.revision) or scripts.is_autocommit(
            self.revision.rollback_script or ""
        ):
            return list(known)
        written = {each.name for each in self.first.rewritten}
        seen = [self.first.measured, *([self._measure.measured()] if self._measure else [])]
        for held in (held for measured in seen for held in measured.locks):
            if held.mode >= Mode.ROW_EXCLUSIVE:
                written.add(held.relation)
        return [name for name in known if name in written]

    def _prove(self, script: str) -> None:
        try:
            self.act = self._undo(script)
            self.verdict = "proven"
        except inside.ReachesOut as exc:
            self.verdict = f"not run: it acts on what all databases of the server share ({exc})"
            return
        except _WrongScript:
            self._judge("wrong", self._wrong)
            return
        except MigratorError as exc:
            refuse_lost(exc)
            self._judge("wrong", [exc.found.partition("\n")[0], *_statement(exc)])
            return
        if self._wrong:
            self._judge("wrong", self._wrong)
        self._again()

    def _undo(self, script: str) -> Act:
        measure = self._measure = Measure(
            self.stand.copy,
            self.after.relations,
            sampled=scripts.is_autocommit(script),
            stays_inside=self.stand.shares_server,
            before_end=lambda conn: self._compare(conn, script),
        )
        with self.stand.connected() as conn:
            (entry,) = [e for e in ledger.entries(conn) if e.entry == self.entry]
            began = wal_written(conn)
            undo.undo_revision(
                self.stand.copy,
                entry,
                reason="rehearsal",
                run=self.stand.run,
                fence=self.stand.fence,
                watched_by=measure,
            )
            wal_bytes = wal_written(conn) - began
        return Act(measure.measured(), wal_bytes)

    def _compare(self, conn: Connection, script: str) -> None:
        """Compare catalog and rows with what was before, inside the script's transaction."""
        conn.execute("SELECT set_config('statement_timeout', '0', true)")
        now = snapshot.read(conn, left_out=self.stand.version_tables)
        differing = snapshot.differences(now, self.before.catalog, ignoring=())
        self._wrong = list(dict.fromkeys(_told(each) for each in differing))
        touched = self.touched()
        rows = fingerprint.read(conn, {name: self.stand.columns[name] for name in touched})
        held = {name: one for name, one in self.stand.rows.items() if name in touched}
        for what in fingerprint.lost(held, rows):
            if not declares(script, what):
                self._wrong.append(f"the rows of {what} are not what they were")
        if self._wrong and not scripts.is_autocommit(script):
            raise _WrongScript

    def _again(self) -> None:
        """Apply it a second time, as after an emergency."""
        try:
            self.stand.up(self.revision, self.before)
        except MigratorError as exc:
            refuse_lost(exc)
            self.is_stuck = True
            first = exc.found.partition("\n")[0]
            self._judge("wrong", [f"after it the revision cannot be applied again: {first}"])
            return
        again = self.stand.now = self.stand.look()
        differing = snapshot.differences(again.catalog, self.after.catalog, ignoring=())
        if differing:
            told = [f"applied again after it: {_told(each)}" for each in differing]
            self._judge("wrong", told)

    def _judge(self, verdict: str, found: list[str]) -> None:
        self.verdict = verdict
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        lines = "".join(f"\n  {each}" for each in found[:SHOWN])
        self.problems.append(
            Problem(
                "rollback",
                self.revision.id,
                f"the rollback script of {self.revision.id} does not lead back:{lines}{more}",
                "catalog and rows as they were before the revision, or a line `-- loses: what` that "
                "names the table",
                f"correct {self.revision.rollback_path}, then rehearse again",
            )
        )


def declares(script: str, what: str) -> bool:
    """Whether the script says `-- loses:` of what is lost: a line that names the table. Pure."""
    table = what.replace('"', "").split(".")[1]
    said = re.findall(r"--[ \t]*loses:[ \t]*(.*)", script, re.IGNORECASE)
    return any(re.search(rf"(?<!\w){re.escape(table)}(?!\w)", each) for each in said)


def _told(difference: snapshot.Difference) -> str:
    name = f"{difference.kind} {difference.name}"
    if difference.facet is not None:
        now = drift.shown(difference.live, difference.expected)
        return f"{name}: {difference.facet} is {now}, was {drift.shown(difference.expected, difference.live)}"
    return f"{name} is gone" if difference.live is None else f"{name} is there, and was not before"


def _statement(exc: MigratorError) -> Iterator[str]:
    if statement := exc.data.get("statement"):
        yield f"in: {scripts.first_line(statement)}"
