"""How a worker learns how many rows it may hold, and what records read ahead may take."""

from __future__ import annotations

import pytest

from migrator.kafka.client import MESSAGE_BYTES, consumer_config
from migrator.projections import memory
from migrator.projections.memory import Memory

MB = 1_000_000


class Process:
    def __init__(self) -> None:
        self.peak = 0


@pytest.fixture
def process(monkeypatch):
    process = Process()
    monkeypatch.setattr(memory, "peak_bytes", lambda: process.peak)
    return process


def test_rows_are_spilled_while_there_is_still_room_for_what_is_read_ahead(process):
    held = Memory(100 * MB, reading_bytes=20 * MB)
    process.peak = 79 * MB
    assert not held.is_full(1000)
    process.peak = 81 * MB
    assert held.is_full(1000)


def test_records_that_came_while_rows_were_spilled_do_not_make_rows_fewer(process):
    held = Memory(100 * MB, reading_bytes=20 * MB)
    process.peak = 81 * MB
    assert held.is_full(1000)
    process.peak = 99 * MB
    assert not held.is_full(10)
    assert not held.is_full(900)
    assert held.is_full(901)


def test_memory_that_grows_while_few_rows_are_held_does_not_make_them_few_for_good(process):
    held = Memory(100 * MB)
    process.peak = 101 * MB
    assert held.is_full(100_000)
    process.peak = 110 * MB
    assert not held.is_full(10)
    assert not held.is_full(40_000)


def test_rows_that_grow_are_spilled_ever_sooner(process):
    held = Memory(100 * MB)
    process.peak = 101 * MB
    assert held.is_full(100_000)
    for _ in range(7):
        process.peak = int(process.peak * 1.03)
        held.is_full(1000)
    assert held.is_full(1000)


@pytest.mark.parametrize("message_bytes", [1, 100, 250, 4000])
def test_a_reader_stays_within_its_share_whatever_the_size_of_its_messages(message_bytes):
    share = 8 * 1024 * 1024
    config = consumer_config({}, prefetch_kib=share // 1024)
    by_size = config["queued.max.messages.kbytes"] * 1024 // message_bytes
    most = min(by_size, config["queued.min.messages"])
    assert most * (message_bytes + MESSAGE_BYTES) <= share
