"""Bulk equals live, for long: many more logs and definitions, longer logs, found cases made small."""

from __future__ import annotations

import os

import pytest
from hypothesis import Phase, settings

from tests.bulk import compare
from tests.drawn import cases
from tests.integration.test_bulk_is_live import autocommit  # noqa: F401 - a fixture

pytestmark = pytest.mark.chaos

EXAMPLES = int(os.environ.get("EXAMPLES", "1000"))


def test_in_bulk_and_event_by_event_the_rows_are_equal_in_a_thousand_cases(autocommit):  # noqa: F811
    long = settings(max_examples=EXAMPLES, phases=[Phase.generate, Phase.shrink], print_blob=True)
    compare(autocommit, cases(most=80), long)
