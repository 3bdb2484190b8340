from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest

from migrator.errors import Refused, UsageError
from migrator.migrations import history, plan
from migrator.migrations.applied import Applied
from migrator.postgres.ledger import Entry
from migrator.settings import Settings
from tests import revisions


def entry(number, subject, *, revises=None, act="up", undoes=None):
    return Entry(
        act=act,
        subject=subject,
        run=UUID(int=1),
        duration_ms=1,
        revises=revises,
        undoes=undoes,
        reason="why" if undoes else None,
        entry=number,
        applied_at=datetime.now(UTC),
        role="r",
        client="c",
        git_sha=None,
        previous_hash="",
        entry_hash="",
    )


@dataclass
class Database:
    """What the tests say is applied."""

    version: str | None = None
    entries: tuple[Entry, ...] = ()

    def at(self, *subjects: str) -> Applied:
        entries, before = [], None
        for number, subject in enumerate(subjects, 1):
            entries.append(entry(number, subject, revises=before))
            before = subject
        return Applied((before,) if before else (), tuple(entries))


at = Database().at


@pytest.fixture
def files(tmp_path):
    phases = ("expand", "expand", "contract", "expand")
    revises = None
    for number, phase in enumerate(phases, 1):
        revisions.write(tmp_path, f"{number:04}", revises=revises, head=f'phase = "{phase}"')
        revises = f"{number:04}"
    return history.read(Settings(root=tmp_path))


def ids(some):
    return [revision.id for revision in some]


def test_everything_is_pending_in_an_empty_database(files):
    found = plan.make(files, at())
    assert ids(found.todo) == ids(found.pending) == ["0001", "0002", "0003", "0004"]
    assert (found.version, found.target) == (None, "0004")


def test_what_the_ledger_holds_is_applied(files):
    found = plan.make(files, at("0001", "0002"))
    assert (ids(found.applied), ids(found.pending)) == (["0001", "0002"], ["0003", "0004"])


def test_a_version_without_a_ledger_means_applied_without_an_entry(files):
    found = plan.make(files, Applied(("0002",), ()))
    assert (found.without_entry, ids(found.pending)) == (("0001", "0002"), ["0003", "0004"])


def test_what_a_rollback_has_undone_is_pending_again(files):
    up = at("0001", "0002")
    undone = entry(3, "0002", revises="0001", act="rollback", undoes=2)
    found = plan.make(files, Applied(("0001",), (*up.entries, undone)))
    assert ids(found.pending) == ["0002", "0003", "0004"]


def test_to_ends_the_plan_there(files):
    assert ids(plan.make(files, at(), to="0002").todo) == ["0001", "0002"]


def test_to_an_applied_revision_leaves_nothing_to_do(files):
    assert plan.make(files, at("0001", "0002"), to="0001").todo == ()


def test_to_an_unknown_revision_says_which_one_may_be_meant(files):
    with pytest.raises(UsageError, match="unknown revision '0033'") as caught:
        plan.make(files, at(), to="0033")
    assert "did you mean 0003" in caught.value.expected


def test_a_phase_takes_its_prefix_and_stops_before_the_other(files):
    found = plan.make(files, at(), phase="expand")
    assert ids(found.todo) == ["0001", "0002"]
    assert found.stopped_before is not None
    assert found.stopped_before.id == "0003"


def test_a_phase_that_does_not_come_next_applies_nothing(files):
    found = plan.make(files, at(), phase="contract")
    assert found.todo == ()
    assert found.stopped_before is not None
    assert found.target is None


def test_a_database_ahead_of_the_files_is_a_state(files):
    found = plan.make(files, at("0001", "0002", "0003", "0004", "0005"))
    assert (found.unknown, found.pending, found.target) == (("0005",), (), "0005")


def test_pending_revisions_beside_unknown_ones_are_refused(files):
    with pytest.raises(Refused, match=r"0005.*0004 is pending beside it"):
        plan.make(files, at("0001", "0002", "0003", "0005"))


def test_a_version_that_nobody_knows_is_refused(files):
    with pytest.raises(Refused, match="is at 9999, which no file"):
        plan.make(files, Applied(("9999",), ()))


def test_an_adopted_database_that_is_ahead_still_knows_its_base(files):
    ahead = Applied(("0005",), (entry(1, "0005", revises="0004"),))
    found = plan.make(files, ahead)
    assert (found.unknown, found.pending) == (("0005",), ())
