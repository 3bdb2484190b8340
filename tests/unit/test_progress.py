"""Progress: how much is read, how fast, how long it will take."""

from __future__ import annotations

import pytest

from migrator.cli.progress import _Plain, _Totals
from migrator.projections.rebuild import Step
from migrator.projections.replay import Progress


def reached(partition: int, offset: int, events: int) -> Progress:
    return Progress("t", partition, offset, 100, events)


def test_totals_are_over_all_partitions():
    totals = _Totals()
    totals.add(reached(0, 20, 20))
    totals.add(reached(1, 50, 50))
    totals.add(reached(0, 40, 40))
    assert (totals.read, totals.total) == (90, 200)


def test_a_partition_that_resumed_counts_what_is_left_of_it():
    totals = _Totals()
    totals.add(reached(0, 60, 10))
    assert (totals.read, totals.total) == (10, 50)


def test_time_left_follows_the_rate():
    totals = _Totals(began=0.0)
    totals.add(reached(0, 50, 50))
    assert totals.seconds_left * totals.rate == pytest.approx(50, rel=0.01)


def test_a_plain_line_is_told_once_in_a_while(capsys):
    plain = _Plain()
    plain.heard(Step("replay", "folding"))
    plain.heard(reached(0, 10, 10))
    plain._next_line = 0
    plain.heard(reached(0, 50, 50))
    plain.heard(reached(0, 60, 60))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "replay: folding"
    assert lines[1].startswith("replay: 50 of 100 events, ")
    assert len(lines) == 2
