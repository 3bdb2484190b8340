"""The short one of tests/chaos/test_neon_faults.py, with a seed of its own."""

from __future__ import annotations

import random

import pytest

from tests.neon_chaos import Chaos


@pytest.mark.chaos
def test_30_runs_with_30_percent_of_all_calls_failing_leave_no_orphan_and_no_wrong_state(
    neon, database_url, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    chaos = Chaos(neon, database_url, random.Random(7))
    chaos.run(30, 0.3)
    assert chaos.repeats > 0
    assert chaos.kept
