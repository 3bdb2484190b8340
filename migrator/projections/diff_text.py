"""A diff in lines for a person, from the numbers of its check: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN_VALUE = 60


def diff_lines(numbers: Mapping[str, Any]) -> list[str]:
    """How many differ by column, the first keys that differ, and what was not compared."""
    return [*_by_column(numbers), *_first(numbers), *_columns(numbers)]


def _by_column(numbers: Mapping[str, Any]) -> Iterator[str]:
    if changed := numbers.get("changed_columns"):
        told = ", ".join(f"{name} in {count:,}" for name, count in changed.items())
        yield f"columns that differ: {told}"


def _first(numbers: Mapping[str, Any]) -> Iterator[str]:
    first = numbers.get("first", ())
    for each in first:
        key = ", ".join(each["key"].values())
        if each["kind"] == "missing":
            yield f"{key}: only in live"
        elif each["kind"] == "extra":
            yield f"{key}: only in the new build"
        else:
            yield f"{key}: " + ", ".join(
                f"{name} was {shown(live)} and is {shown(shadow)}"
                for name, (live, shadow) in each["columns"].items()
            )
    if first and (more := numbers["differing"] - len(first)) > 0:
        yield f"and {more:,} more"


def _columns(numbers: Mapping[str, Any]) -> Iterator[str]:
    for old, new in numbers.get("renamed", {}).items():
        yield f"column {old} of live was compared with {new}"
    for name, kind in numbers.get("as_type", {}).items():
        yield f"column {name} was compared as {kind}"
    for name, why in numbers.get("not_compared", {}).items():
        yield f"column {name} was not compared: {why}"
    if only := numbers.get("only_live"):
        yield f"only live has: {', '.join(only)}"
    if only := numbers.get("only_shadow"):
        yield f"only the new build has: {', '.join(only)}"


def shown(value: str | None) -> str:
    """A value as a message shows it: short, and apart from the words around it."""
    if value is None:
        return "NULL"
    return repr(value if len(value) <= SHOWN_VALUE else value[:SHOWN_VALUE] + "...")
