"""What every command has at hand: the settings, the way to print, the way to ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from migrator.settings import Settings


@dataclass
class App:
    """The global flags of one invocation."""

    config: Path | None = None
    database_url: str | None = None
    json: bool = False
    verbosity: int = 0
    log_format: str = "auto"
    overrides: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        from migrator import settings

        overrides = dict(self.overrides)
        if self.database_url is not None:
            overrides["database"] = {"url": self.database_url}
        return settings.load(config=self.config, overrides=overrides)

    @cached_property
    def console(self) -> Console:
        """Where people read: stdout, or stderr when stdout is for the one JSON document."""
        from rich.console import Console

        return Console(stderr=self.json, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one plain line for a person; in JSON mode it goes to stderr."""
        click.echo(text, err=self.json)

    def emit(self, document: dict[str, Any], text: str) -> None:
        """Print the command's result: one JSON document, or the text."""
        click.echo(json.dumps(document, default=str, indent=2) if self.json else text)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be taken back.

        Raises:
            UsageError: nobody is at a terminal to answer, and --yes was not given.
        """
        from migrator.errors import UsageError

        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError(
                "nobody is at a terminal to confirm this",
                expected="--yes, where a pipeline runs the command",
                next_step="read what --dry-run prints, then repeat with --yes",
            )
        click.confirm(question, abort=True, err=self.json)


pass_app: Callable[..., Any] = click.make_pass_decorator(App, ensure=True)


@contextmanager
def errors_rendered(app: App) -> Iterator[None]:
    """Turn a MigratorError into its message and exit code; a traceback is a bug of ours."""
    from migrator.errors import MigratorError

    try:
        with _drivers_translated():
            yield
    except MigratorError as exc:
        if app.json:
            click.echo(json.dumps(exc.as_json(), default=str, indent=2))
        else:
            first, *rest = str(exc).splitlines()
            click.echo("\n".join([f"error: {first}", *(f"  {line}" for line in rest)]), err=True)
        raise SystemExit(exc.exit_code) from None
    except click.UsageError as exc:
        if not app.json:
            raise
        from migrator.errors import UsageError

        click.echo(json.dumps(UsageError(exc.format_message()).as_json(), indent=2))
        raise SystemExit(UsageError.exit_code) from None


@contextmanager
def _drivers_translated() -> Iterator[None]:
    """Let no error of a driver past: where the work did not explain it, its adapter does."""
    try:
        yield
    except Exception as exc:
        psycopg = sys.modules.get("psycopg")
        if psycopg is None or not isinstance(exc, psycopg.Error):
            raise
        from migrator.postgres.connect import translated

        raise translated(exc) from exc
