"""Progress: how much is read, how fast, how long it will take, and how old the news is."""

from __future__ import annotations

import json

import pytest

from migrator.cli.progress import _Lines, _Plain, replay_progress
from migrator.errors import Refused
from migrator.projections.progress import WINDOW_S, Reach, Tracker
from migrator.projections.quarantine import Quarantined
from migrator.projections.rebuild import Step
from migrator.projections.replay import Progress


def reached(partition: int, offset: int, events: int, *, committed: bool = False) -> Progress:
    return Progress("t", partition, offset, 100, events, committed)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tracker(clock):
    return Tracker(clock)


def of(tracker: Tracker, partition: int) -> Reach:
    return next(r for r in tracker.reaches() if r.partition == partition)


def test_the_whole_is_over_all_partitions_also_over_those_whose_turn_has_not_come(tracker):
    tracker.add(reached(0, 0, 0))
    tracker.add(reached(1, 0, 0))
    tracker.add(reached(0, 40, 40))
    whole = tracker.whole()
    assert (whole.read, whole.total) == (40, 200)
    assert of(tracker, 1).news_age_s is None


def test_a_partition_that_resumed_counts_what_is_left_of_it(tracker):
    tracker.add(reached(0, 60, 10))
    assert (tracker.whole().read, tracker.whole().total) == (10, 50)


def test_time_left_follows_the_rate(tracker, clock):
    tracker.add(reached(0, 0, 0))
    tracker.add(reached(0, 10, 10))
    assert (of(tracker, 0).events_per_s, of(tracker, 0).seconds_left) == (None, None)
    clock.now = 2.0
    tracker.add(reached(0, 50, 50))
    assert (of(tracker, 0).events_per_s, of(tracker, 0).seconds_left) == (20.0, 2.5)
    assert tracker.whole().seconds_left == 2.5


def test_where_nothing_comes_the_rate_falls_and_the_news_grows_old(tracker, clock):
    tracker.add(reached(0, 10, 10))
    clock.now = 1.0
    tracker.add(reached(0, 50, 50))
    clock.now = 5.0
    assert of(tracker, 0).events_per_s == 8.0
    clock.now = 2 * WINDOW_S
    stalled = of(tracker, 0)
    assert (stalled.events_per_s, stalled.seconds_left) == (0.0, None)
    assert stalled.news_age_s == 2 * WINDOW_S - 1


def test_a_partition_that_is_read_again_has_no_rate_below_nothing(tracker, clock):
    tracker.add(reached(0, 90, 90))
    clock.now = 1.0
    tracker.add(reached(0, 10, 10))
    assert (of(tracker, 0).read, of(tracker, 0).events_per_s) == (10, None)
    clock.now = 2.0
    tracker.add(reached(0, 30, 30))
    assert of(tracker, 0).events_per_s == 20.0


def test_a_committed_partition_has_nothing_left(tracker, clock):
    tracker.add(reached(0, 50, 50))
    clock.now = 1.0
    tracker.add(reached(0, 100, 100, committed=True))
    done = of(tracker, 0)
    assert (done.seconds_left, done.is_committed, done.events_per_s) == (0.0, True, None)


def test_plain_lines_are_told_once_in_a_while_with_one_for_each_partition_at_work(capsys):
    plain = _Plain()
    plain.heard(Step("replay", "folding"))
    plain.heard(reached(0, 10, 10))
    plain.heard(reached(1, 0, 0))
    plain._next_line = 0
    plain.heard(reached(0, 50, 50))
    plain.heard(reached(0, 60, 60))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "replay: folding"
    assert lines[1].startswith("replay: 50 of 200 events, ")
    assert lines[2].startswith("  partition 0: 50 of 100 events, ")
    assert len(lines) == 3


def test_json_lines_tell_steps_partitions_and_every_error(capsys):
    lines = _Lines()
    lines.heard(Step("replay", "folding"))
    lines.heard(Quarantined("orders", "t", 0, 7, "k", "broken"))
    lines._next_line = 0
    lines.heard(reached(0, 50, 50))
    lines.heard(reached(0, 100, 100, committed=True))
    with pytest.raises(Refused), replay_progress(as_json=True):
        raise Refused("not so", next_step="do this")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in told] == [
        "step",
        "quarantined",
        "progress",
        "committed",
        "error",
    ]
    assert (told[1]["partition"], told[1]["offset"], told[1]["error"]) == (0, 7, "broken")
    assert told[2]["partitions"][0]["end_offset"] == 100
    assert told[3]["is_committed"]
    assert told[4]["found"] == "not so"
