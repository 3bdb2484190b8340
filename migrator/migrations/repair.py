"""Accept a deliberate edit of one applied revision's file, by a new entry of the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import uuid4

from migrator.errors import Refused, UsageError
from migrator.migrations import applied, history, tampering
from migrator.migrations.revision import Revision
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.postgres.ledger import Entry, NewEntry
from migrator.postgres.locks import deployer_lock
from migrator.settings import Settings


@dataclass(frozen=True)
class Repair:
    """One applied revision, the hash that the ledger accepts, and the one that its file has."""

    revision: Revision
    entry: Entry
    accepted: str | None

    @property
    def is_needed(self) -> bool:
        return self.accepted != self.revision.source_hash


def plan(settings: Settings, revision: str) -> Repair:
    """Compare the revision's file with the ledger; read-only.

    Raises:
        UsageError: neither files nor ledger know such a revision.
        Refused: it is not applied, has no entry, or has no file.
    """
    files = {known.id: known for known in history.read(settings).revisions}
    with connect(settings, "repair plan") as conn:
        conn.read_only = True
        state = applied.read(conn, settings.migrations)
    standing = {entry.subject: entry for entry in state.standing}
    if revision not in files and revision not in standing:
        known = files.keys() | standing.keys()
        raise UsageError.unknown("revision", revision, known, next_step="migrator history")
    if revision not in standing:
        raise Refused(
            f"revision {revision} has no entry in the ledger that stands",
            expected="an applied revision; one that is pending may be edited freely",
            next_step="migrator status shows what is applied",
            revision=revision,
        )
    if revision not in files:
        raise Refused(
            f"no file here has revision {revision}, which the database holds",
            expected="the edited file: its hash is what is accepted",
            next_step="restore the file, then run this again",
            revision=revision,
        )
    entry = standing[revision]
    return Repair(files[revision], entry, tampering.accepted_hash(state.entries, entry))


def repair(settings: Settings, planned: Repair, *, reason: str) -> int:
    """Append the entry that accepts the file as it is; returns its number. No old entry changes.

    Only the hash is accepted: nothing of what the edit would do is done to the database.

    Raises:
        UsageError: the reason is empty.
        Refused: the revision was undone or repaired meanwhile.
        Busy: another run held the deployer lock until the deadline.
    """
    if not reason.strip():
        raise UsageError("a repair needs a reason", expected='--reason "why"')
    started = time.monotonic()
    with deployer_lock(settings, "deploy") as fence, connect(settings, "repair") as conn:
        fence.check(conn)
        state = applied.read(conn, settings.migrations)
        stands = any(entry.entry == planned.entry.entry for entry in state.standing)
        if not stands or tampering.accepted_hash(state.entries, planned.entry) != planned.accepted:
            raise Refused(
                f"revision {planned.revision.id} was undone or repaired meanwhile",
                expected="the state that was shown",
                next_step="migrator history, then run this again",
            )
        return ledger.append(
            conn,
            NewEntry(
                act="repair",
                subject=planned.revision.id,
                run=uuid4(),
                duration_ms=round((time.monotonic() - started) * 1000),
                message=planned.entry.message,
                phase=planned.entry.phase,
                revises=planned.entry.revises,
                source_hash=planned.revision.source_hash,
                reason=reason,
            ),
        )
