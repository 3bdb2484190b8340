"""200 random kills in a row of rebuilds and of their servers: every rebuild gives the same rows."""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest

from tests.kills import Rebuilds
from tests.own_broker import own_broker
from tests.own_server import own_server

pytestmark = pytest.mark.chaos

KILLS = 200
EVENTS = 40_000


@pytest.mark.parametrize("seed", [1])
def test_200_random_kills_end_in_the_rows_of_a_clean_rebuild(tmp_path, capsys, seed):
    with own_server("18") as server, own_broker() as broker:
        rebuilds = Rebuilds(tmp_path, server, broker, random.Random(seed))
        rebuilds.prepare(EVENTS)
        for _ in range(KILLS):
            rebuilds.kill_something(within_s=5)
        rebuilds.finish()
    with capsys.disabled():
        sys.stdout.write(f"{rebuilds.finished} rebuilds, killed {Counter(rebuilds.killed)}\n")
