"""What a finding weighs here: by the table's real size, and by the revision's phase; pure."""

from __future__ import annotations

from dataclasses import replace

from migrator.migrations.lint.model import Finding, Script, Surroundings
from migrator.migrations.lint.squawk_rules import RULES
from migrator.migrations.lint.walk import created, key

SMALL_ROWS = 10_000
# Locks that are held for other work than a scan of this table: its rows make them no longer.
_BRIEF = {
    "dynamic-sql",
    "multiple-alter-table",
    "several-tables-locked",
    "sql-not-known",
    "table-locked-by-hand",
    "trigger-created",
    "trigger-switched",
    "work-after-access-exclusive",
}
_NOT_SIZED = frozenset({*_BRIEF, *(name for name, known in RULES.items() if not known.sized)})


def weigh(finding: Finding, script: Script, around: Surroundings) -> Finding | None:
    """The finding with the severity that it has here; None where nobody can be harmed.

    A lock on a table that the script itself creates holds up nobody. On a table below 10,000 rows
    it is a warning, above it an error, and the message says the size. What removes something is
    what a contract revision is for: there it is a notice.
    """
    if finding.category == "compat" and script.phase == "contract":
        return replace(finding, severity="notice")
    if finding.table is None or finding.category not in ("lock", "timeout", "compat"):
        return finding
    if key(finding.table) in created(script):
        return None
    if finding.category != "lock" or finding.severity == "notice" or finding.rule in _NOT_SIZED:
        return finding
    return _by_size(finding, finding.table, around)


def _by_size(finding: Finding, table: str, around: Surroundings) -> Finding:
    rows = around.rows.get(table, around.rows.get(key(table)))
    if rows is None:
        return finding
    size = around.sizes_bytes.get(table, around.sizes_bytes.get(key(table)))
    disk = f", {_bytes(size)}" if size is not None else ""
    return replace(
        finding,
        severity="warning" if rows < SMALL_ROWS else "error",
        message=f"{finding.message} ({table} has about {rows:,.0f} rows{disk})",
    )


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
