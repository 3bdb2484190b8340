"""200 swaps under two projectors, ours and a foreign one, with kills and aborted swaps."""

from __future__ import annotations

import os

import pytest

from tests.hand_over import hand_over

pytestmark = pytest.mark.chaos

SWAPS = int(os.environ.get("SWAPS", "200"))
SEED = int(os.environ.get("SEED", "1"))


def test_of_200_swaps_no_event_is_lost_or_doubled(tmp_path, make_settings, brokers, topic, capsys):
    told = hand_over(tmp_path, make_settings, brokers, topic("payments"), SWAPS, SEED)
    with capsys.disabled():
        print(f"\n{told}")  # noqa: T201 - the figures of a run
    assert told.swaps == SWAPS
