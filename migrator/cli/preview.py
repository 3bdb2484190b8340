"""`migrator preview`: a branch for each pull request."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migrator.cli.context import App, pass_app
from migrator.cli.spans import Span

if TYPE_CHECKING:
    from migrator.deploy.preview import Preview


@click.group("preview")
def command() -> None:
    """Give each pull request a database of its own: a branch with its revisions and projections."""


@command.command()
@click.option("--name", metavar="NAME", help="Its name.  [default: pr-NUMBER, or the git branch]")
@click.option(
    "--ttl",
    type=Span(),
    default="14d",
    metavar="SPAN",
    help="How long to keep it after the last push, as 12h or 7d.  [default: 14d]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be made and change nothing.")
@pass_app
def create(app: App, name: str | None, ttl: timedelta, dry_run: bool) -> None:
    """Make the preview, or make it anew, and print its URL.

    It begins as the database is now.  The pending revisions are applied, and projections whose
    definition has changed are rebuilt.  On GitHub the URL is masked in logs, and an output of the step.
    """
    from migrator.deploy import preview
    from migrator.neon import branches

    if dry_run:
        name = branches.checked(name) if name else preview.default_name()
        is_there = any(each.name == name for each in preview.every(app.settings))
        text = f"{name} would be made{' anew' if is_there else ''}; nothing was changed"
        app.emit({"dry_run": True, "name": name, "exists": is_there}, text)
        return
    from migrator.executors import local

    if app.settings.projections_dir.is_dir() and app.settings.projections.executor == "local":
        local.warm_up("migrator.projections.replay")
    # The URL alone is on stdout: url=$(migrator preview create)
    made = preview.create(
        app.settings, name=name, ttl=ttl, told=lambda line: click.echo(line, err=True)
    )
    url = made.url.get_secret_value()
    _mask(url)
    _output(made, url)
    app.emit(
        {
            "name": made.name,
            "url": url,
            "new": made.is_new,
            "branch": asdict(made.branch),
            "applied": list(made.applied),
            "rebuilt": list(made.rebuilt),
        },
        url,
    )


@command.command()
@click.option("--name", metavar="NAME", help="Its name.  [default: pr-NUMBER, or the git branch]")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted and change nothing.")
@pass_app
def delete(app: App, name: str | None, dry_run: bool) -> None:
    """Delete the preview of a pull request; it is no error if there is none."""
    from migrator.deploy import preview

    name = name or preview.default_name()
    if dry_run:
        was_there = any(each.name == name for each in preview.every(app.settings))
    else:
        was_there = preview.delete(app.settings, name)
    did = "would be deleted" if dry_run else "deleted"
    text = f"{did}: {name}" if was_there else f"There is no preview {name}."
    app.emit({"dry_run": dry_run, "name": name, "deleted": was_there}, text)


@command.command()
@click.option("--older-than", type=Span(), metavar="SPAN", help="Also those made longer ago.")
@click.option("--all", "all_of_them", is_flag=True, help="Also those whose time is not up.")
@click.option("--keep", multiple=True, metavar="NAME", help="Never this one; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted and change nothing.")
@pass_app
def sweep(
    app: App, older_than: timedelta | None, all_of_them: bool, keep: tuple[str, ...], dry_run: bool
) -> None:
    """Delete the previews whose time is up, and go on where one cannot be deleted.

    It looks only at what migrator has made as a preview of this database.  A default or protected
    branch, or one with children, is never deleted.
    """
    from migrator.deploy import preview

    chosen = preview.to_sweep(
        preview.every(app.settings), older_than=older_than, all_of_them=all_of_them, keep=keep
    )
    if dry_run:
        names = [each.name for each in chosen]
        text = f"would be deleted: {', '.join(names)}" if names else NOTHING
        app.emit({"dry_run": True, "deleted": names, "failed": []}, text)
        return
    swept = preview.sweep(app.settings, chosen)
    lines = [f"deleted: {', '.join(swept.deleted)}"] if swept.deleted else []
    lines += [f"not deleted: {name}: {why}" for name, why in swept.failed]
    failed = [{"name": name, "why": why} for name, why in swept.failed]
    app.emit(
        {"dry_run": False, "deleted": list(swept.deleted), "failed": failed},
        "\n".join(lines) or NOTHING,
    )
    if swept.failed:
        raise SystemExit(1)


NOTHING = "No preview is to be deleted."


def _mask(url: str) -> None:
    """Let GitHub's logs show neither the URL nor the password in it."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from urllib.parse import unquote

    from psycopg.conninfo import conninfo_to_dict

    password = str(conninfo_to_dict(url).get("password") or "")
    encoded = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in dict.fromkeys([url, password, encoded, unquote(encoded)]):
        if secret:
            click.echo(f"::add-mask::{secret}", err=True)


def _output(made: Preview, url: str) -> None:
    file = os.environ.get("GITHUB_OUTPUT")
    if file:
        lines = [f"database-url={url}", f"branch={made.branch.id}", f"name={made.name}"]
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write("".join(f"{line}\n" for line in lines))
