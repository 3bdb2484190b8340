"""The page of the phases shows the list that `up` refuses by."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrator.migrations.hazards import HAZARDS

PAGE = (Path(__file__).parents[2] / "docs" / "phases.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hazard", HAZARDS.values(), ids=HAZARDS)
def test_every_entry_of_the_list_is_in_the_table_word_for_word(hazard):
    row = f"| `{hazard.id}` | {hazard.what} | {hazard.why} | {hazard.way} |"
    breaking, noted = PAGE.split("These are worth a notice")
    assert row in (breaking if hazard.breaks else noted)
