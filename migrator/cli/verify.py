"""`migrator verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.migrations.findings import Checked, Finding
    from migrator.migrations.verify import Report


@click.command("verify")
@click.option(
    "--skip-drift", is_flag=True, help="Do not check for drift, and make no scratch database."
)
@pass_app
def command(app: App, skip_drift: bool) -> None:
    """Find tampered files and entries, drift, invalid indexes and unvalidated constraints.

    Drift is the live catalog against what the revisions produce in a scratch database, which is
    made on the same server and dropped.

    The exit code is 0 only where every check has run and nothing differs; it is 1 where something
    does, and where drift could not be checked and --skip-drift did not say that it need not be.
    """
    from migrator.migrations import verify

    report = verify.verify(app.settings, with_drift=not skip_drift)
    document = {
        "clean": report.is_clean,
        "complete": report.is_complete,
        "last_link": report.last_link,
        "checks": [asdict(checked) for checked in report.checks],
        "findings": [asdict(finding) for finding in report.findings],
    }
    app.emit(document, "\n".join(_lines(report)))
    if not (report.is_clean and report.is_complete):
        raise SystemExit(1)


def _lines(report: Report) -> list[str]:
    lines = []
    for checked in report.checks:
        found = [f for f in report.findings if f.check == checked.check]
        lines += _check_lines(checked, found)
    problems = sum(finding.is_problem for finding in report.findings)
    if problems:
        lines.append(f"{problems} problem{'' if problems == 1 else 's'} found.")
    if not report.is_complete:
        lines.append(
            "Not everything could be checked: see the word skipped. migrator verify --skip-drift says "
            "that the rest is enough."
        )
    elif not problems and any(checked.skipped for checked in report.checks):
        lines.append("Nothing wrong was found in what was checked.")
    elif not problems:
        lines.append("Database, ledger and files belong together.")
    return lines


def _check_lines(checked: Checked, found: list[Finding]) -> list[str]:
    if checked.skipped:
        lines = [f"skipped  {checked.check}: {checked.skipped}"]
        if checked.next_step:
            lines.append(f"           next: {checked.next_step}")
        return lines
    verdict = "failed" if any(f.is_problem for f in found) else "ok"
    lines = [f"{verdict:<8} {checked.check}: {checked.said}"]
    for finding in found:
        lines += [
            f"         {'' if finding.is_problem else 'note: '}{finding.found}",
            f"           expected: {finding.expected}",
            f"           next: {finding.next_step}",
        ]
    return lines
