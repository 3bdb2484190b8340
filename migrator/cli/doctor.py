"""`migrator doctor`: check everything that a deploy needs."""

from __future__ import annotations

from dataclasses import asdict

import click

from migrator.cli.context import App, pass_app


@click.command("doctor")
@pass_app
def command(app: App) -> None:
    """Check connections, privileges, settings, migrations, projections and topics.

    It changes nothing.  A failed check makes the exit code: 5 where something does not answer, 2
    where settings are missing, 1 otherwise.
    """
    from migrator.deploy.doctor import examine

    findings = examine(app.settings)
    lines = []
    for each in findings:
        lines.append(f"{each.verdict:8} {each.check}: {each.found}")
        if each.next_step:
            lines.append(f"         next: {each.next_step}")
    app.emit({"findings": [asdict(each) for each in findings]}, "\n".join(lines))
    failed = [each for each in findings if each.verdict == "failed"]
    if failed:
        raise SystemExit(max(each.exit_code for each in failed))
