"""Bulk equals live: however a log is folded, the rows in PostgreSQL are the same."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings

from migrator.postgres import ledger
from tests.bulk import compare
from tests.drawn import cases


@pytest.fixture
def autocommit(db):
    db.autocommit = True
    db.execute("SET timezone = 'UTC'")
    ledger.ensure(db)
    return db


def test_in_bulk_spilled_killed_by_any_number_of_workers_and_event_by_event_the_rows_are_equal(
    autocommit,
):
    # What it finds is made small by the long run, in tests/chaos: that takes minutes.
    quick = settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
    compare(autocommit, cases(), quick)
