"""A throttled reader stays below its rate, and catches up on nothing that it missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from migrator.kafka.log import READ_AHEAD, Limits
from migrator.kafka.throttle import BURST_S, Throttle


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


sizes = st.lists(st.tuples(st.integers(1, 5_000), st.floats(0, 3)), min_size=1, max_size=50)


@given(sizes)
def test_over_any_stretch_no_more_is_taken_than_the_rate_and_the_burst(taken):
    clock = Clock()
    throttle = Throttle(1000.0, clock=clock, sleep=clock.sleep)
    times = []
    for size, pause in taken:
        clock.now += pause
        throttle.took(size)
        times.append((clock.now, size))
    for first in range(len(times)):
        for last in range(first + 1, len(times)):
            over = times[last][0] - times[first][0]
            assert sum(size for _, size in times[first + 1 : last + 1]) <= 1000 * (
                over + BURST_S + 1e-6
            )


def test_a_slow_reader_never_waits():
    clock = Clock()
    throttle = Throttle(1000.0, clock=clock, sleep=lambda _s: 1 / 0)
    for _ in range(10):
        clock.now += 2.0
        throttle.took(1000)


def test_what_is_read_ahead_is_no_burst_of_a_throttled_reader():
    assert Limits(bytes_per_s=1_024_000).prefetch_kib == 1000


def test_readers_share_the_memory_of_a_worker():
    assert Limits(memory_bytes=READ_AHEAD * 10 * 1024 * 1024).prefetch_kib == 10 * 1024
