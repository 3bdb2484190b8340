"""`migrator status`: how things stand, and whether there is work to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.deploy.status import BuildStatus, ProjectionStatus, Status
    from migrator.postgres.locks import Holder

PENDING = 6


@click.command("status")
@click.option("--exit-code", is_flag=True, help="Exit with 6 if anything is pending.")
@pass_app
def command(app: App, exit_code: bool) -> None:
    """Show revisions, builds, positions and lag.

    It changes nothing and waits for no lock, so it is safe at any time, from any checkout.
    """
    from migrator.deploy.status import status

    found = status(app.settings)
    app.emit(_document(found), _text(found))
    if exit_code and found.is_pending:
        raise SystemExit(PENDING)


def _document(found: Status) -> dict[str, Any]:
    return {
        "database": found.database,
        "pending": found.is_pending,
        "revisions": asdict(found.revisions) if found.revisions else None,
        "projections": [
            {
                "projection": p.name,
                "pending": p.pending,
                "live": _build(p.live) if p.live else None,
                "others": [_build(b) for b in p.others],
            }
            for p in found.projections
        ],
        "last": asdict(found.last) if found.last else None,
        "running": [asdict(holder) for holder in found.running],
        "notes": list(found.notes),
    }


def _build(each: BuildStatus) -> dict[str, Any]:
    return {
        **asdict(each.build),
        "schema": each.build.schema,
        "lag_events": each.lag_events,
        "quarantined": each.quarantined,
        "running": {**asdict(each.running), "seems_alive": each.running.seems_alive}
        if each.running
        else None,
        "left_events": each.left_events,
        "progress": [asdict(n) for n in each.news],
        "positions": [{**asdict(p), "lag_events": p.lag} for p in each.positions],
    }


def _text(found: Status) -> str:
    lines = [f"database: {found.database}", *_revisions(found)]
    for each in found.projections:
        lines += _projection(each)
    if found.last:
        last = found.last
        lines.append(
            f"last: {last.act} {last.subject}, {last.applied_at:%Y-%m-%d %H:%M} UTC, {last.client}"
        )
    lines += [f"running: {holder.lock}, by {holder}" for holder in found.running]
    lines += [f"note: {note}" for note in found.notes]
    lines.append("There is work to do." if found.is_pending else "Nothing is pending.")
    return "\n".join(lines)


def _revisions(found: Status) -> list[str]:
    revisions = found.revisions
    if revisions is None:
        return []
    lines = [f"revision: {revisions.version or 'none'}, {revisions.applied} applied"]
    if revisions.pending:
        lines.append(f"  pending: {', '.join(revisions.pending)}  (migrator up)")
    if revisions.unknown:
        lines.append(
            f"  unknown: {', '.join(revisions.unknown)}  (applied by a newer release; its files "
            "are not in this checkout)"
        )
    return lines


def _projection(each: ProjectionStatus) -> list[str]:
    live = each.live
    if live is None:
        lines = [f"projection {each.name}: not live"]
    else:
        lag = "lag unknown" if live.lag_events is None else f"{live.lag_events:,} events behind"
        lines = [
            f"projection {each.name}: build {live.build.build}, built with {live.build.rows or 0:,} rows, {lag}"
        ]
        lines += _quarantined(live)
    if each.pending:
        lines.append(
            f"  pending: {each.pending}  (migrator rebuild-projections --projection {each.name})"
        )
    for other in each.others:
        lines.append(f"  build {other.build.build}: {_state(other, is_defined=each.is_defined)}")
        lines += _partitions(other)
        lines += _quarantined(other)
    if not each.is_defined:
        lines.append("  its definition is not in this checkout")
    return lines


def _quarantined(each: BuildStatus) -> list[str]:
    if not each.quarantined:
        return []
    where = f"migrator quarantine list --build {each.build.build}"
    return [f"  {each.quarantined:,} events in quarantine  ({where})"]


def _state(each: BuildStatus, *, is_defined: bool) -> str:
    build = each.build
    if build.state == "archived":
        return "archived, kept for migrator rollback"
    if build.state == "failed":
        return f"failed: {build.error}"
    if each.running:
        return f"{build.state}, {_running(each, each.running)}"
    goes_on = "; the same rebuild command goes on with it" if is_defined else ""
    if build.state == "verified":
        return f"verified, not live{goes_on}"
    heard = min((n.news_age_s for n in each.news), default=None)
    since = "" if heard is None else f", it was last heard of {heard:,.0f} s ago"
    return f"{build.state}, {each.left_events:,} events to read; nobody works on it{since}{goes_on}"


def _running(each: BuildStatus, holder: Holder) -> str:
    rates = [n.events_per_s for n in each.news if n.events_per_s]
    pace = (
        f" at {sum(rates):,.0f} events/s, {_left(each.left_events / sum(rates))}" if rates else ""
    )
    said = f"{each.left_events:,} events to read{pace}; {holder.holder} works on it"
    if not holder.seems_alive:
        said += f", and has given no sign of life for {holder.heartbeat_age_s:,.0f} s"
    return said


def _partitions(each: BuildStatus) -> list[str]:
    """What a running replay says of each partition, with the age of what it said."""
    if not each.running:
        return []
    return [
        f"    {n.topic} {n.partition}: {n.next_offset:,} of {n.end_offset:,}"
        + (f", {n.events_per_s:,.0f} events/s, {_left(n.seconds_left)}" if n.events_per_s else "")
        + f", {n.news_age_s:,.0f} s ago"
        for n in each.news
    ]


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"{seconds:,.0f} s left"
