"""`migrator quarantine`: the events that a build goes without, since they could not be folded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app
from migrator.cli.progress import printable

if TYPE_CHECKING:
    from migrator.projections.quarantine import Held
    from migrator.projections.release import Released


@click.group("quarantine")
def command() -> None:
    """Show and release the events that a build goes without.

    `rebuild-projections --quarantine N` puts them aside instead of stopping at the first.
    """


@command.command("list")
@click.option("--build", type=click.IntRange(min=1), metavar="BUILD", help="Only of this build.")
@click.option("--projection", metavar="NAME", help="Only of this projection's builds.")
@click.option("--released", is_flag=True, help="Show those that were released, too.")
@pass_app
def list_(app: App, build: int | None, projection: str | None, released: bool) -> None:
    """List the events in quarantine, oldest first.

    It changes nothing and waits for no lock.
    """
    from migrator.postgres.connect import connect
    from migrator.projections import quarantine

    with connect(app.settings, "quarantine") as conn:
        conn.read_only = True
        found = quarantine.entries(conn, build=build, projection=projection, released=released)
    text = "\n".join(_line(each) for each in found) or "No event is in quarantine."
    app.emit({"quarantine": [_document(each) for each in found]}, text)


@command.command()
@click.argument("entry", type=click.IntRange(min=1))
@click.option("--hex", "as_hex", is_flag=True, help="Print key, headers and value in hex.")
@pass_app
def show(app: App, entry: int, as_hex: bool) -> None:
    """Show the event of ENTRY with its bytes and its error.

    What is no UTF-8 text is printed in hex anyway.
    """
    from migrator.postgres.connect import connect
    from migrator.projections import quarantine

    with connect(app.settings, "quarantine") as conn:
        conn.read_only = True
        found = quarantine.entry(conn, entry)
    app.emit(_document(found), _shown(found, as_hex=as_hex))


@command.command()
@click.argument("entries", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with the entry.")
@click.option("--dry-run", is_flag=True, help="Say what would be released and change nothing.")
@pass_app
def release(app: App, entries: tuple[int, ...], reason: str, dry_run: bool) -> None:
    """Mark ENTRIES as seen to: status and list leave them out from then on.

    What waits behind an entry that `migrator follow` has put there is folded into the live table, in
    order; the event itself, too, if that is possible now.  Those of a rebuild are marked and no more: a
    rebuild reads every event again, released or not.
    """
    from migrator.postgres.connect import connect
    from migrator.projections import quarantine
    from migrator.projections.release import Released, release

    if dry_run:
        with connect(app.settings, "quarantine") as conn:
            conn.read_only = True
            done = Released(quarantine.releasable(conn, entries))
    else:
        with connect(app.settings, "quarantine", autocommit=True) as conn:
            done = release(conn, app.settings, entries, reason)
    said = "would be released" if dry_run else "released"
    lines = [f"{said}: {_line(each)}" for each in done.marked]
    key = "plan" if dry_run else "released"
    app.emit(
        {
            key: [_document(each) for each in done.marked],
            "folded": done.folded,
            "left_out": done.left_out,
            "stopped": done.stopped,
        },
        "\n".join([*lines, *_folded(done), *(["Nothing was changed."] if dry_run else [])]),
    )


def _folded(done: Released) -> list[str]:
    lines = [f"left out of the table: entry {entry}" for entry in done.left_out]
    if done.folded:
        lines.append(f"folded into the table: entry {', '.join(map(str, done.folded))}")
    return lines + [
        f"entry {entry} does not fold either, and holds back what is behind it: {printable(why)}"
        for entry, why in done.stopped.items()
    ]


def _line(each: Held) -> str:
    released = f" (released: {each.reason})" if each.released_at else ""
    behind = (
        f" (waits behind entry {each.held_behind})"
        if each.held_behind not in (None, each.entry)
        else ""
    )
    return (
        f"{each.entry}  build {each.build} of {each.projection}  {each.topic} "
        f"partition {each.partition} offset {each.event_offset}  key {_text(each.key)}  "
        f"{printable(each.error)}{behind}{released}"
    )


def _shown(each: Held, *, as_hex: bool) -> str:
    def said(raw: bytes | None) -> str:
        return _hex(raw) if as_hex else _text(raw)

    headers = [
        f"  header {name}: {said(None if value is None else bytes.fromhex(value))}"
        for name, value in each.headers
    ]
    released = (
        [f"  released: {each.released_at:%Y-%m-%d %H:%M} UTC, {each.released_by}: {each.reason}"]
        if each.released_at
        else []
    )
    return "\n".join(
        [
            f"entry {each.entry}: build {each.build} of {each.projection}",
            f"  place: topic {each.topic}, partition {each.partition}, offset {each.event_offset}",
            f"  time: {each.event_time:%Y-%m-%d %H:%M:%S} UTC"
            if each.event_time
            else "  time: none",
            f"  type: {each.event_type or 'not known'}",
            f"  error: {printable(each.error)}",
            f"  quarantined: {each.quarantined_at:%Y-%m-%d %H:%M} UTC",
            *released,
            *headers,
            f"  key: {said(each.key)}",
            f"  value: {said(each.value)}",
        ]
    )


def _text(raw: bytes | None) -> str:
    if raw is None:
        return "null"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _hex(raw)
    return printable(text)


def _hex(raw: bytes | None) -> str:
    return "null" if raw is None else f"hex {raw.hex()}"


def _document(each: Held) -> dict[str, Any]:
    return {
        **asdict(each),
        "key": _both(each.key),
        "value": _both(each.value),
        "headers": [
            {"name": name, "value": _both(None if value is None else bytes.fromhex(value))}
            for name, value in each.headers
        ],
    }


def _both(raw: bytes | None) -> dict[str, str | None] | None:
    """As text, where it is UTF-8, and in hex; null where there is nothing."""
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"text": None, "hex": raw.hex()}
    return {"text": text, "hex": raw.hex()}
