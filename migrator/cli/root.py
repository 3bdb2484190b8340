"""The root command: global flags, and commands that are imported only when they are named."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from migrator.cli.context import App, errors_rendered
from migrator.version import __version__

# name -> (module, one line for --help); kept here so that --help imports no command.
COMMANDS = {
    "deploy": ("deploy", "Do all of it: lint, verify, migrate, rebuild, cut over, check health."),
    "up": ("up", "Apply the pending revisions, forward only."),
    "new": ("new", "Start the next revision and its rollback script."),
    "lint": ("lint", "Say what is not safe under traffic, and the safe way to do it."),
    "baseline": ("baseline", "Adopt an existing database: declare revisions applied."),
    "status": ("status", "Show revisions, builds, positions and lag."),
    "verify": ("verify", "Find tampered files, drift, invalid indexes."),
    "repair": ("repair", "Accept a deliberate edit of an applied revision's file."),
    "history": ("history", "Show what was done to this database, newest first."),
    "rehearse": ("rehearse", "Run the pending deployment on a throw-away copy, and report."),
    "events": ("events", "Show what is in a topic, and what no projection handles."),
    "rebuild-projections": (
        "rebuild_projections",
        "Replay the topics into fresh tables, check them, and cut over.",
    ),
    "cut-over": ("cut_over", "Make verified builds live at one instant."),
    "follow": ("follow", "Keep live tables current: the projector."),
    "quarantine": ("quarantine", "Show and release the events that a build goes without."),
    "abort": ("abort", "Give up an unfinished or failed build, and drop its tables."),
    "prune": ("prune", "Drop archived builds that no rollback needs."),
    "rollback": ("rollback", "Undo the last deployment, cut-over or revision."),
    "checkpoint": ("checkpoint", "Take the database as it is, and go back to it."),
    "preview": ("preview", "Give each pull request a database of its own."),
    "doctor": ("doctor", "Check connections, privileges, settings and topics."),
    "demo": ("demo", "Run the whole story on real servers with real orders."),
    "sandbox": ("sandbox", "Start or stop a PostgreSQL and a Kafka to try things on."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"migrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from migrator.errors import UsageError

        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UsageError.unknown("command", args[0], COMMANDS, next_step="migrator --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        with errors_rendered(ctx.ensure_object(App)):
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or settings, 3 refused by a safety rule, "
    "4 busy, 5 cannot connect, 6 pending work (status --exit-code), 7 a deploy was not healthy and is "
    "rolled back, 8 its rollback failed.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MIGRATOR_CONFIG",
    help="Settings file.  [default: migrator.toml, or [tool.migrator] in pyproject.toml]",
)
@click.option(
    "--database-url", metavar="URL", help="PostgreSQL, as postgresql://user@host/database."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; logs go to stderr.")
@click.option("-v", "--verbose", count=True, help="Log more; -vv for everything.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    help="How log lines look.  [default: console on a terminal, json elsewhere]",
)
@click.version_option(__version__, prog_name="migrator", message="%(prog)s %(version)s")
@click.pass_context
def root(
    ctx: click.Context,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
    verbose: int,
    log_format: str,
) -> None:
    """One deploy step for the PostgreSQL schema you own and the projections you derive from Kafka.

    Apply migrations with `migrator up`, rebuild a projection with `migrator rebuild-projections
    --projection NAME`, and at 3 am go back with `migrator rollback`.

    New here?  `migrator demo` tells the whole story on servers of its own.
    """
    app = ctx.ensure_object(App)
    app.config, app.database_url, app.json = config, database_url, as_json
    app.verbosity, app.log_format = verbose, log_format
    if ctx.invoked_subcommand is not None:
        from migrator import logs

        logs.configure(verbosity=verbose, log_format=log_format)  # type: ignore[arg-type]
