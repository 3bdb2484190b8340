"""Counting different keys: exact where all are seen, within its interval where some are."""

from __future__ import annotations

import random

import pytest

from migrator.projections.distinct import DistinctKeys


def key(number):
    return b"%d" % number


@pytest.mark.parametrize("keys", [2_000, 20_000, 400_000])
def test_the_estimate_of_a_sample_nearly_always_holds_the_truth(keys):
    held = 0
    for seed in range(20):
        found = sampled(random.Random(seed), keys)
        assert found.low <= found.estimate <= found.high <= 5 * keys
        held += found.low <= keys <= found.high
    assert held >= 17


def sampled(chance, keys):
    """Eight stretches of each of four partitions, of a log in which a key has five events."""
    seen = DistinctKeys()
    for stretch in range(32):
        part = stretch % 4
        seen.add(part, [key(part + 4 * chance.randrange(keys // 4)) for _ in range(125)], 125)
    return seen.estimated(5 * keys)


def test_keys_that_never_come_back_are_bounded_by_what_a_stretch_holds():
    seen = DistinctKeys()
    for stretch in range(8):
        seen.add(0, [key(1000 * stretch + n // 2) for n in range(100)], 100)
    found = seen.estimated(100_000)
    assert (found.low, found.high) == (400, 50_000)


def test_the_count_is_exact_below_its_limit():
    seen = DistinctKeys()
    seen.add(0, map(key, range(500)), 500)
    seen.add(1, map(key, range(500, 700)), 200)
    assert seen.counted().low == seen.counted().high == 700


def test_past_its_limit_the_count_is_close_and_the_memory_bounded():
    seen = DistinctKeys(limit=4000)
    for first in range(0, 200_000, 1000):
        seen.add(0, map(key, range(first, first + 1000)), 1000)
    found = seen.counted()
    # The interval misses one time in twenty, since hashes are salted; five errors are never off.
    assert found.low < found.estimate < found.high
    assert abs(found.estimate - 200_000) < 2.5 * (found.high - found.estimate)
    assert len(seen._seen) <= 4000


def test_a_key_in_two_partitions_is_told_with_both():
    seen = DistinctKeys()
    seen.add(0, [b"a", b"b"], 2)
    seen.add(3, [b"b"], 1)
    assert seen.split == [(b"b", 0, 3)]
