"""What a diff means for the build: whether the differences were to be expected, allowed, or neither. Pure.

A rebuild of the very definition that live was built with must give live's rows: any difference fails.
Where the definition has changed, differences are what the rebuild is for: they are told and pass, unless
a limit was set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal

from migrator.projections.diff import Diff
from migrator.projections.verdict import Judged


@dataclass(frozen=True)
class Asked:
    """What the diff is measured by. `max_diff` is a number of keys or a percentage; None for neither.

    `accepted` is the reason for which any difference may pass.
    """

    max_diff: str | None = None
    accepted: str | None = None


def judged(diff: Diff, asked: Asked, *, same_definition: bool) -> Judged:
    """Hold a diff against what was asked, else against what the definition leads one to expect."""
    allowed = _allowed(diff, asked, same_definition=same_definition)
    numbers = {**asdict(diff), "differing": diff.differing, "allowed": allowed}
    found = told(diff)
    if not diff.differing:
        return Judged("passed", found, numbers)
    if asked.accepted is not None:
        numbers["accepted"] = asked.accepted
        return Judged("passed", f"{found}; accepted: {asked.accepted}", numbers)
    if allowed is None:
        return Judged("passed", f"{found}; the definition has changed: look at them", numbers)
    if diff.differing <= allowed:
        return Judged("passed", f"{found}; up to {allowed:,} may", numbers)
    limit = f"at most {allowed:,} may" if asked.max_diff else "the definition is the same: none may"
    return Judged("failed", f"{found}; {limit}", numbers)


def not_judged(why: str, asked: Asked, *, has_live: bool) -> Judged:
    """A diff that could not be made passes for none; with a limit that was set, it fails."""
    if asked.max_diff is None or not has_live:
        return Judged("skipped", why, {})
    if asked.accepted is not None:
        return Judged("skipped", f"{why}; accepted: {asked.accepted}", {"accepted": asked.accepted})
    return Judged("failed", f"{why}; and at most {asked.max_diff} may differ (max_diff)", {})


def told(diff: Diff) -> str:
    """The numbers in one line."""
    ways = [
        f"{number:,} {kind}"
        for kind, number in (
            ("missing", diff.missing),
            ("extra", diff.extra),
            ("changed", diff.changed),
        )
        if number
    ]
    differ = f"{diff.differing:,} differ from live ({', '.join(ways)})" if ways else "none differs"
    left_out = (
        f"; {diff.left_out:,} left out, touched by {diff.events_between:,} events between"
        if diff.left_out
        else ""
    )
    return f"{diff.keys:,} keys compared with build {diff.live}, {differ}{left_out}"


def _allowed(diff: Diff, asked: Asked, *, same_definition: bool) -> int | None:
    if asked.max_diff is None:
        return 0 if same_definition else None
    if asked.max_diff.endswith("%"):
        return int(diff.keys * Decimal(asked.max_diff[:-1]) / 100)
    return int(asked.max_diff)
