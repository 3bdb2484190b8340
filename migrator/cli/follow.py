"""`migrator follow`: the projector, which keeps live tables current."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.follow import Foreseen


@click.command("follow")
@click.option(
    "--projection",
    "names",
    multiple=True,
    metavar="NAME",
    help="Follow this one; may be repeated.  [default: all]",
)
@click.option(
    "--wait", "waits", is_flag=True, help="Wait while a build of another definition is live."
)
@click.option("--until-caught-up", is_flag=True, help="Stop at the ends that the topics have now.")
@click.option(
    "--keep-hot",
    is_flag=True,
    help="Feed the archived build of this definition, too; implies --wait.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve /healthz, /readyz and /metrics here."
)
@click.option("--host", default="0.0.0.0", show_default=True, help="The address to serve them on.")  # noqa: S104
@click.option("--dry-run", is_flag=True, help="Say what would be followed and change nothing.")
@pass_app
def command(
    app: App,
    names: tuple[str, ...],
    waits: bool,
    until_caught_up: bool,
    keep_hot: bool,
    port: int | None,
    host: str,
    dry_run: bool,
) -> None:
    """Keep live tables current: fold what comes to their topics, exactly once.

    Run it in as many processes as you like; they share the partitions.  SIGTERM and Ctrl-C let it
    finish its batch and leave.  With --json, each line on stdout is a document.
    """
    from migrator.projections import follow

    if dry_run:
        found = follow.foresee(app.settings, names)
        app.emit(
            {"plan": [asdict(each) for each in found]},
            "\n".join([*map(_foreseen, found), "Nothing was changed."]),
        )
        return
    options = follow.Options(waits, until_caught_up, keep_hot, host, port)
    with _told_to_stop() as stop:
        applied = follow.follow(
            app.settings, names, options, stop, listener=lambda said: _print(app, said)
        )
    for name, events in applied.items():
        _print(app, {"event": "stopped", "projection": name, "events": events})


def _foreseen(each: Foreseen) -> str:
    if each.build is None:
        return f"{each.projection}: no build is live"
    if not each.is_ours:
        return f"{each.projection}: build {each.build} is live, of another definition than this checkout's"
    return f"{each.projection}: would follow build {each.build}, with {each.lag_events:,} events to come"


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process at once."""
    stop = Event()

    def heard(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    signals = (signal.SIGTERM, signal.SIGINT)
    before = {each: signal.signal(each, heard) for each in signals}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _print(app: App, said: dict[str, Any]) -> None:
    if app.json:
        click.echo(json.dumps(said, default=str))
        return
    who = f"{said['projection']}: " if "projection" in said else ""
    click.echo(f"{who}{_text(said)}")


def _text(said: dict[str, Any]) -> str:
    if said["event"] != "progress":
        return _LINES[said["event"]].format(**said | {"partitions": _listed(said)})
    lag = "an unknown number of" if said["lag_events"] is None else f"{said['lag_events']:,}"
    waiting = said["quarantined"] + said["held_back"]
    aside = f", {waiting:,} in quarantine" if waiting else ""
    return f"{said['events']:,} events applied, {lag} to come{aside}"


def _listed(said: dict[str, Any]) -> str:
    return ", ".join(said.get("partitions", ())) or "no partition"


_LINES = {
    "serving": "/healthz, /readyz and /metrics on {host}:{port}",
    "waiting": "waits for its build: {why}",
    "failing": "goes on in a moment: {why}",
    "following": "follows build {build}: {partitions}",
    "kept hot": "archived build {build}: {events:,} events applied",
    "not kept hot": "the archived build is held up: {why}",
    "stopped": "{events:,} events applied; stopped",
}
