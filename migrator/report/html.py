"""Render a report as one HTML file: its style within, no script, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from migrator.errors import UsageError
from migrator.version import __version__


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped.

    A template extends `base.html`, which has the style that all reports share.
    """
    environment = Environment(
        loader=PackageLoader("migrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    now = datetime.now(UTC).replace(microsecond=0)
    return environment.get_template(template).render(now=now, version=__version__, **values)


def rebuild(document: Mapping[str, Any], error: Mapping[str, Any] | None) -> str:
    """The page of a rebuild, from what `--json` prints, and from the error that ended it, if one did.

    Of a rebuild that failed the document has no projection; its checks are in the error's data.
    """
    results = [r for each in document["projections"] for r in each["results"]]
    results += (error or {}).get("data", {}).get("report", [])
    by_projection: dict[str, list[Any]] = {}
    for each in results:
        by_projection.setdefault(each["projection"], []).append(each)
    builds = {each["projection"]: each for each in document["projections"]}
    return render(
        "rebuild.html",
        document=document,
        error=error,
        projections=[
            {"name": name, "build": builds.get(name), "results": by_projection.get(name, [])}
            for name in dict.fromkeys([*builds, *by_projection])
        ],
        folded=sum(each["events"] for each in document["projections"]),
        longest=max(document["seconds"].values(), default=0),
    )


def refuse_unwritable(file: Path) -> None:
    """Find out before the work, and not after it, that a report could not be written.

    Raises:
        UsageError: its folder is not there, or may not be written to.
    """
    try:
        with file.open("a", encoding="utf-8"):
            pass
    except OSError as exc:
        raise UsageError(
            f"the report {file} cannot be written: {exc.strerror}",
            expected="a file in a folder that is there",
        ) from exc


def write(file: Path, page: str) -> None:
    """Write a page over what is there."""
    file.write_text(page, encoding="utf-8")
