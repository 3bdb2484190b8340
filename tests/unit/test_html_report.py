"""The report of a rebuild as HTML: whole, escaped, and of nothing but itself."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from migrator.cli import check_results
from migrator.errors import UsageError
from migrator.projections.checks import DIFF, Result
from migrator.report import html

EVIL = "<script>alert('x')</script>\" onload='y"
NUMBERS = {
    "live": 1,
    "shadow": 2,
    "keys": 1234,
    "differing": 3,
    "missing": 1,
    "extra": 1,
    "changed": 1,
    "changed_columns": {EVIL: 1},
    "left_out": 7,
    "events_between": 9,
    "first": [
        {"kind": "changed", "key": {"id": EVIL}, "columns": {EVIL: (EVIL, None)}},
        {"kind": "missing", "key": {"id": "o2"}, "columns": {}},
        {"kind": "extra", "key": {"id": "o3"}, "columns": {}},
    ],
    "renamed": {"old": EVIL},
    "as_type": {"n": "bigint"},
    "not_compared": {"p": EVIL},
    "only_live": [EVIL],
    "only_shadow": ["fresh"],
    "accepted": EVIL,
}


def result(verdict="passed", check=DIFF, found=EVIL, **numbers):
    return {
        "projection": EVIL,
        "check": check,
        "verdict": verdict,
        "found": found,
        "numbers": numbers,
    }


DOCUMENT = {
    "run": "r",
    "projections": [
        {
            "projection": EVIL,
            "build": 2,
            "rows": 1000,
            "events": 2000,
            "lag_events": 0,
            "quarantined": 0,
            "results": [result(**NUMBERS), result("skipped", "another")],
        }
    ],
    "cut_over": {"live": [2], "archived": [1], "held_ms": 3.1, "stall_ms": 4.2, "attempts": 1},
    "seconds": {"replay": 0.5, "verify": 0.1},
}
NOTHING = {"projections": [], "seconds": {}, "cut_over": None}
ERROR = {
    "found": f"1 of 2 checks fail: {EVIL}",
    "expected": EVIL,
    "next": EVIL,
    "data": {"report": [result("failed", **NUMBERS)]},
}


class Page(HTMLParser):
    """What a browser would make of a page."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


PAGES = [
    pytest.param(DOCUMENT, None, id="done"),
    pytest.param(NOTHING, ERROR, id="failed"),
    pytest.param(NOTHING, None, id="nothing"),
    pytest.param({**DOCUMENT, "cut_over": None}, None, id="verified"),
]


@pytest.mark.parametrize(("document", "error"), PAGES)
def test_no_value_of_a_row_becomes_markup_and_nothing_is_fetched(document, error):
    page = Page(html.rebuild(document, error))
    assert page.open == []
    assert "script" not in [tag for tag, _ in page.tags]
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & {"src", "href", "onload", "onclick"}


@pytest.mark.parametrize(("document", "error"), PAGES[:2])
def test_checks_differences_and_columns_are_told(document, error):
    text = Page(html.rebuild(document, error)).text
    for said in (EVIL, "1,234", "only in live", "only in the new build", "NULL", "bigint", "fresh"):
        assert said in text


def test_steps_and_rate_are_told():
    text = Page(html.rebuild(DOCUMENT, None)).text
    assert "replay" in text
    assert "2,000 events folded, 4,000 a second" in " ".join(text.split())


def test_both_colour_schemes_and_small_screens_have_their_style():
    source = html.rebuild(DOCUMENT, None)
    assert "prefers-color-scheme: dark" in source
    assert "@media (max-width: 40rem)" in source
    assert 'name="viewport"' in source


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        html.refuse_unwritable(tmp_path / "no" / "report.html")


def test_a_terminal_shows_a_table_in_which_values_are_no_markup():
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    results = [Result("orders", DIFF, "failed", "[bold]2 differ[/bold]", NUMBERS)]
    shown = check_results.table(results, console)
    assert all(len(line) <= 60 for line in shown)
    assert "[bold]2 differ[/bold]" in " ".join(shown)
    assert "only in live" in " ".join(shown)
