"""`migrator sandbox`: a PostgreSQL and a Kafka to try things on."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.sandbox.parts import Kind


@click.group("sandbox")
def command() -> None:
    """Run PostgreSQL and Kafka on this machine to try things on.

    Nothing needs to be installed: the servers are downloaded once, about 60 MB.
    Their data is thrown away when they stop.
    """


@command.command()
@click.option(
    "--postgres",
    type=click.Choice(["15", "16", "17", "18"]),
    help="PostgreSQL's major version.  [default: 18]",
)
@click.option(
    "--sandbox",
    "kind",
    type=click.Choice(["auto", "embedded", "docker"]),
    default="auto",
    show_default=True,
    help="auto: containers if Docker answers and testcontainers is installed, else embedded.",
)
@pass_app
def up(app: App, postgres: str | None, kind: Kind) -> None:
    """Start both servers and print the variables that point migrator at them.

    They run until 'migrator sandbox down'. If they are up already, the same variables are printed.

    \b
    To set the variables in this shell:
        eval "$(migrator sandbox up)"
    """  # noqa: D301 -- click's mark for a paragraph that keeps its lines
    from migrator.sandbox import standing

    def say(line: str) -> None:
        click.echo(line, err=True)  # stdout is for the shell to evaluate

    sandbox = standing.up(postgres, kind, say)
    variables = sandbox.environment()
    document = {
        "database_url": sandbox.database_url,
        "kafka_bootstrap_servers": sandbox.bootstrap_servers,
        "environment": variables,
        "postgres": sandbox.postgres,
        "kind": sandbox.kind,
        "log_dir": sandbox.log_dir,
        "was_up": sandbox.was_up,
    }
    lines = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    app.emit(document, "\n".join(lines))


@command.command()
@pass_app
def down(app: App) -> None:
    """Stop both servers and remove their data."""
    from migrator.sandbox import standing

    stopped = standing.down()
    text = "The sandbox is down." if stopped else "No sandbox was up."
    app.emit({"stopped": stopped}, text)
