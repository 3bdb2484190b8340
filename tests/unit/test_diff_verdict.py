"""What a diff means, by what was asked and by whether the definition is live's."""

from __future__ import annotations

import pytest

from migrator.projections.diff import Diff
from migrator.projections.diff_text import diff_lines
from migrator.projections.diff_verdict import Asked, judged, not_judged


def diff(differing: int, keys: int = 1000) -> Diff:
    return Diff(
        live=1,
        shadow=2,
        live_rows=keys,
        shadow_rows=keys,
        keys=keys,
        missing=0,
        extra=0,
        changed=differing,
        changed_columns={"status": differing} if differing else {},
        first=(),
        left_out=0,
        events_between=0,
        buckets=None,
        renamed={},
        as_type={},
        only_live=(),
        only_shadow=(),
        not_compared={},
        seconds=0.1,
    )


@pytest.mark.parametrize(
    ("differing", "max_diff", "same_definition", "verdict"),
    [
        (0, None, True, "passed"),
        (1, None, True, "failed"),
        (1, None, False, "passed"),
        (1, "0", False, "failed"),
        (1, "1", True, "passed"),
        (2, "1", True, "failed"),
        (1, "0.1%", True, "passed"),
        (2, "0.1%", True, "failed"),
        (3, "0.29%", True, "failed"),
        (1000, "100%", True, "passed"),
    ],
)
def test_a_limit_binds_any_definition_and_without_one_only_the_same_must_agree(
    differing, max_diff, same_definition, verdict
):
    seen = judged(diff(differing), Asked(max_diff), same_definition=same_definition)
    assert seen.verdict == verdict
    assert seen.numbers["differing"] == differing


@pytest.mark.parametrize("max_diff", [None, "0"])
def test_a_reason_lets_any_difference_pass_and_is_in_the_numbers(max_diff):
    seen = judged(diff(7), Asked(max_diff, "why"), same_definition=True)
    assert (seen.verdict, seen.numbers["accepted"]) == ("passed", "why")


def test_a_reason_is_not_kept_where_nothing_differs():
    seen = judged(diff(0), Asked(None, "why"), same_definition=True)
    assert "accepted" not in seen.numbers


@pytest.mark.parametrize(
    ("asked", "has_live", "verdict"),
    [
        (Asked(), True, "skipped"),
        (Asked("0"), True, "failed"),
        (Asked("0"), False, "skipped"),
        (Asked("0", "why"), True, "skipped"),
    ],
)
def test_what_was_not_compared_is_skipped_unless_a_limit_was_set(asked, has_live, verdict):
    assert not_judged("too far apart", asked, has_live=has_live).verdict == verdict


def test_the_lines_name_keys_values_and_columns():
    numbers = {
        "differing": 4,
        "changed_columns": {"status": 2},
        "first": [
            {"kind": "changed", "key": {"id": "o1"}, "columns": {"status": ("a", None)}},
            {"kind": "missing", "key": {"a": "x", "b": "1"}, "columns": {}},
            {"kind": "extra", "key": {"id": "y" * 3}, "columns": {}},
        ],
        "renamed": {"old": "new"},
        "as_type": {"n": "bigint"},
        "not_compared": {"p": "no cast"},
        "only_live": ("gone",),
        "only_shadow": ("fresh",),
    }
    assert diff_lines(numbers) == [
        "columns that differ: status in 2",
        "o1: status was 'a' and is NULL",
        "x, 1: only in live",
        "yyy: only in the new build",
        "and 1 more",
        "column old of live was compared with new",
        "column n was compared as bigint",
        "column p was not compared: no cast",
        "only live has: gone",
        "only the new build has: fresh",
    ]
