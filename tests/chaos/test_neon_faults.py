"""Five hundred checkpoint, preview and restore runs while 30 % of all calls fail."""

from __future__ import annotations

import os
import random
import sys

import pytest

from tests.neon_chaos import Chaos


@pytest.mark.chaos
def test_500_runs_leave_no_orphan_and_no_wrong_state(
    neon, database_url, tmp_path, monkeypatch, record_property
):
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    record_property("seed", seed)
    monkeypatch.chdir(tmp_path)
    chaos = Chaos(neon, database_url, random.Random(seed))
    try:
        chaos.run(int(os.environ.get("CHAOS_RUNS", "500")), 0.3)
    finally:
        sys.stderr.write(f"CHAOS_SEED={seed}: {chaos}\n")
