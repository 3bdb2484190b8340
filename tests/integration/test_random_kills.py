"""A few random kills of a rebuild and of its servers; `make chaos` has 200 of them."""

from __future__ import annotations

import random

from tests.kills import Rebuilds
from tests.own_broker import own_broker
from tests.own_server import own_server


def test_random_kills_end_in_the_rows_of_a_clean_rebuild(tmp_path):
    with own_server("18") as server, own_broker() as broker:
        rebuilds = Rebuilds(tmp_path, server, broker, random.Random(7))
        rebuilds.prepare(events=8_000)
        for _ in range(6):
            rebuilds.kill_something(within_s=3)
        rebuilds.finish()
    assert rebuilds.finished >= 1
