from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.migrations import pace
from migrator.migrations.pace import Limits, Load

CALM = Load(replay_lag_s=None, replay_lag_bytes=None, active=1, max_connections=100, lock_waiters=0)


def test_a_page_that_took_twice_the_target_is_halved():
    assert pace.adapted(1000, 0.4, Limits(target_ms=200)) == 500


def test_a_quick_page_grows_at_most_to_twice_its_size():
    assert pace.adapted(1000, 0.001, Limits(target_ms=200)) == 2000


@given(st.integers(1, pace.LARGEST_BATCH), st.floats(0, 1e6))
def test_a_page_always_has_at_least_one_row_and_never_too_many(batch, elapsed_s):
    assert 1 <= pace.adapted(batch, elapsed_s, Limits()) <= pace.LARGEST_BATCH


@given(st.integers(0, 10**6), st.floats(0, 100), st.floats(1, 1e6))
def test_with_its_rest_a_page_is_never_above_the_rate(rows, elapsed_s, rate):
    total_s = elapsed_s + pace.rest_s(rows, elapsed_s, Limits(max_rows_per_s=rate))
    assert rows <= rate * total_s * (1 + 1e-9)


def test_without_a_rate_there_is_no_rest():
    assert pace.rest_s(10**9, 0.1, Limits()) == 0


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({"replay_lag_s": 11.0}, "a replica is 11.0 s behind"),
        ({"replay_lag_bytes": 300 * 2**20}, "a replica is 314,572,800 bytes of WAL behind"),
        ({"active": 81}, "81 of 100 connections are active"),
        ({"lock_waiters": 2}, "2 sessions wait for locks"),
    ],
)
def test_each_limit_that_is_passed_pauses_and_says_why(load, said):
    assert pace.why_pause(replace(CALM, **load), Limits()) == said


def test_a_limit_that_is_lifted_does_not_pause():
    busy = Load(
        replay_lag_s=1e6,
        replay_lag_bytes=10**12,
        active=100,
        max_connections=100,
        lock_waiters=50,
    )
    lifted = Limits(
        max_replay_lag_s=None, max_replay_lag_bytes=None, max_active=None, max_lock_waiters=None
    )
    assert pace.why_pause(busy, lifted) is None


def test_where_there_is_no_replica_lag_does_not_pause():
    assert pace.why_pause(CALM, Limits()) is None
