"""Compare the live catalog with what the revisions produce, and find what was left half built."""

from __future__ import annotations

import re

from migrator.errors import Refused
from migrator.migrations import plan, scratch
from migrator.migrations.findings import Checked, Finding, Outcome, State
from migrator.migrations.revision import Revision
from migrator.migrations.scratch import Produced
from migrator.postgres import snapshot
from migrator.postgres.snapshot import CatalogObject, Difference, Snapshot


def not_asked(_state: State) -> Outcome:
    """Say that drift was not asked for."""
    return Checked("drift", "", skipped="as --skip-drift asks", as_asked=True), []


def drift(state: State) -> Outcome:
    """Build what the revisions produce and compare; the result is kept in the state."""
    try:
        revisions = _to_build(state)
        if not revisions:
            return Checked("drift", "no revision is applied, so nothing is expected"), []
        assert state.files is not None
        state.produced = produced = scratch.produce(
            state.settings, state.files, revisions, left_out=state.left_out
        )
    except scratch.Impossible as exc:
        return Checked("drift", "", skipped=str(exc), next_step=exc.next_step), []
    differing = [
        d for d in snapshot.differences(state.live, produced.snapshot) if not _is_left_to_others(d)
    ]
    said = f"{len(state.live)} objects compared with what {len(revisions)} revisions produce"
    found = [_drifted(d, produced) for d in differing]
    return Checked("drift", said), found + [_apart(s) for s in _of_kind(state.live, "subscription")]


def _to_build(state: State) -> tuple[Revision, ...]:
    """The revisions that the database is at.

    Raises:
        Impossible: the files do not hold them all.
    """
    if state.files is None or state.version_problem is not None:
        raise scratch.Impossible(
            "the files do not say what is applied", "see the findings on files first"
        )
    try:
        found = plan.make(state.files, state.applied)
    except Refused as exc:
        raise scratch.Impossible(exc.found, exc.next_step) from exc
    if found.unknown:
        raise scratch.Impossible(
            f"no file here has {', '.join(found.unknown)}",
            "run migrator verify from the checkout that the database was deployed from",
        )
    return found.applied


def _is_left_to_others(difference: Difference) -> bool:
    """What belongs to the server or cannot be read, and what other checks tell."""
    if difference.kind == "extension" and difference.expected is None:
        return True
    if difference.kind == "subscription":
        return True
    if (difference.kind, difference.facet) == ("user mapping", "option names"):
        # The server tells them to their owner alone.
        return difference.live is None
    if difference.kind == "index" and difference.live and difference.facet is None:
        return not difference.live.get("valid", True)
    return (difference.kind, difference.facet) in (("index", "valid"), ("constraint", "validated"))


def _drifted(difference: Difference, produced: Produced) -> Finding:
    name = f"{difference.kind} {difference.name}"
    revision, what = _last_touched(difference, produced)
    by = f"; revision {revision} last touched {what}" if revision else ""
    if difference.facet is not None:
        found = f"{name}: {difference.facet} is {shown(difference.live, difference.expected)}"
        expected = f"{shown(difference.expected, difference.live)}{by}"
        step = "change it back, or write a revision that makes it so: migrator new"
    elif difference.live is None:
        found, expected = f"{name} is not there", f"it is there{by}"
        step = "make it again, or write a revision that drops it: migrator new"
    else:
        found, expected = f"{name} is there, and no revision makes it", f"it is not there{by}"
        step = "drop it, or write a revision that makes it: migrator new"
    return Finding(
        check="drift",
        subject=name,
        revision=revision,
        found=found,
        expected=expected,
        next_step=step,
    )


def _apart(subscription: CatalogObject) -> Finding:
    return Finding(
        check="drift",
        subject=f"subscription {subscription.name}",
        found=f"subscription {subscription.name} is not compared: in the scratch database it would "
        "reach out to its publisher",
        expected="you to look at it",
        next_step="\\dRs+ in psql shows it",
        is_problem=False,
    )


_NAME = re.compile(r'"((?:[^"]|"")+)"|([^".(]+)')


def _last_touched(difference: Difference, produced: Produced) -> tuple[str | None, str]:
    """The newest revision on the object, else on the table it is part of; and which of the two."""
    own = _names(difference.name)[-1]
    part_of = _names(difference.part_of or "")[1:2]
    if difference.kind == "table":
        return produced.last_touched(own, of_table=True), "it"
    if difference.kind == "column":
        found = produced.last_touched(*part_of, own, of_table=True)
    else:
        found = produced.last_touched(own)
    if found is None and part_of:
        return produced.last_touched(*part_of, of_table=True), f"table {part_of[0]}"
    return found, "it"


def _names(qualified: str) -> list[str]:
    """The parts of a quoted name; of a function's only what stands before its arguments."""
    head = re.sub(r'\((?=[^"]*$).*$', "", qualified)
    return [(quoted or bare).replace('""', '"') for quoted, bare in _NAME.findall(head)]


def shown(value: object, other: object) -> str:
    """A facet's value on one line; of a longer text the first line that differs from the other."""
    if value is None:
        return "not set"
    text = str(value)
    if "\n" not in text:
        return text
    theirs = str(other).splitlines()
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if number > len(theirs) or line != theirs[number - 1]:
            return f"another, from line {number} on: {line.strip()}"
    return f"another, of {len(lines)} lines"


def indexes(state: State) -> Outcome:
    """Find INVALID indexes."""
    live = _of_kind(state.live, "index")
    found = [
        Finding(
            check="indexes",
            subject=index.name,
            revision=_maker(state, index),
            found=f"index {index.name} on {index.part_of} is INVALID: no query uses it, "
            "and every write pays for it",
            expected="a valid index; an interrupted CREATE or REINDEX CONCURRENTLY leaves this",
            next_step=f"REINDEX INDEX CONCURRENTLY {index.name};  or, if nobody needs it, "
            f"DROP INDEX CONCURRENTLY {index.name};",
        )
        for index in live
        if not index.facets["valid"]
    ]
    return Checked("indexes", f"{len(live)} looked at"), found


def constraints(state: State) -> Outcome:
    """Find constraints that are NOT VALID."""
    live = _of_kind(state.live, "constraint")
    found = [_unvalidated(state, c) for c in live if not c.facets["validated"]]
    return Checked("constraints", f"{len(live)} looked at"), found


def _unvalidated(state: State, constraint: CatalogObject) -> Finding:
    """One that the revisions leave so is on its way: a later revision validates it."""
    own = _quoted_last(constraint.name)
    made = state.produced and state.produced.snapshot.get((constraint.kind, constraint.name))
    is_meant = bool(made) and not made.facets["validated"] if made else False
    return Finding(
        check="constraints",
        subject=constraint.name,
        revision=_maker(state, constraint),
        found=f"constraint {own} on {constraint.part_of} is NOT VALID: rows from before it "
        "may break it" + (", and so the revisions leave it" if is_meant else ""),
        expected="a validated constraint",
        next_step=f"ALTER TABLE {constraint.part_of} VALIDATE CONSTRAINT {own};"
        "  in a revision of its own (it does not block reads or writes)",
        is_problem=not is_meant,
    )


def _of_kind(live: Snapshot, kind: str) -> list[CatalogObject]:
    return [found for (its_kind, _), found in live.items() if its_kind == kind]


def _maker(state: State, known: CatalogObject) -> str | None:
    return state.produced.last_touched(_names(known.name)[-1]) if state.produced else None


def _quoted_last(name: str) -> str:
    return re.split(r'\.(?=(?:[^"]*"[^"]*")*[^"]*$)', name)[-1]
