"""`migrator lint`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.deploy.lint import Report

REFUSED = 3


@click.command("lint")
@click.argument("targets", nargs=-1, metavar="[REV|FILE]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    help="How findings are written.  [default: text, or json under --json]",
)
@click.option("--no-database", is_flag=True, help="Ask no database, even where one is named.")
@click.option(
    "--capture",
    is_flag=True,
    help="Run what cannot be rendered, in a transaction that is rolled back.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever is found.")
@pass_app
def command(
    app: App,
    targets: tuple[str, ...],
    form: str | None,
    no_database: bool,
    capture: bool,
    exit_zero: bool,
) -> None:
    """Say what is not safe under traffic in revisions and SQL files, with the safe way to do it.

    Without arguments: what is pending, or every revision where there is no database. FILE is an SQL
    file or a revision's; - is standard input. Exits with 3 where an error remains.
    """
    from migrator.deploy import lint

    stdin = sys.stdin.read() if lint.STDIN in targets else ""
    report = lint.lint(
        app.settings, targets, stdin=stdin, database=not no_database, capturing=capture
    )
    _show(app, report, form or ("json" if app.json else "text"))
    if report.count("error") and not exit_zero:
        raise SystemExit(REFUSED)


def _show(app: App, report: Report, form: str) -> None:
    from migrator.migrations.lint import formats

    match form:
        case "json":
            click.echo(json.dumps(_document(report), indent=2))
        case "sarif":
            click.echo(json.dumps(formats.sarif(report.linted), indent=2))
        case "github":
            if found := formats.github(report.linted):
                click.echo(found)
        case _:
            blocks = [formats.text(report.linted), *(f"note: {note}" for note in report.notes)]
            app.say("\n".join(filter(None, [*blocks, _summary(report)])))


def _document(report: Report) -> dict[str, Any]:
    from migrator.migrations.lint import formats

    return {
        "findings": formats.entries(report.linted),
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "notices": report.count("notice"),
        "linted": [each.source.file for each in report.linted],
        "notes": list(report.notes),
    }


def _summary(report: Report) -> str:
    if not report.linted:
        return "nothing to lint: no revision is pending"
    counts = [
        _many(report.count(severity), severity) for severity in ("error", "warning", "notice")
    ]
    ignored = sum(len(each.ignored) for each in report.linted)
    said = f"{', '.join(counts)} in {_many(len(report.linted), 'file')}"
    return f"{said}; {ignored} ignored with a reason" if ignored else said


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
