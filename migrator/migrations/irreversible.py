"""What a revision declares when no rollback script can exist for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Irreversible:
    """The reason, which `migrator rollback` shows when it refuses."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("irreversible() needs the reason why no rollback script can exist")


def irreversible(reason: str) -> Irreversible:
    """Declare that no script can undo a revision; it is assigned to `rollback`.

    Raises:
        ValueError: the reason is empty.
    """
    return Irreversible(reason)
