"""What a check says: that it passes, fails, or was skipped, in words and in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Judged:
    """`found` is for a person, `numbers` are for programs."""

    verdict: Verdict
    found: str
    numbers: dict[str, Any] = field(default_factory=dict)


def passed(holds: bool, found: str, **numbers: Any) -> Judged:
    """Passed where it holds, else failed."""
    return Judged("passed" if holds else "failed", found, numbers)
