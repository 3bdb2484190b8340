"""`migrator events`: what is in a topic."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.contents import Contents


@click.command("events")
@click.argument("topic")
@click.option("--all", "everything", is_flag=True, help="Read every event instead of a sample.")
@pass_app
def command(app: App, topic: str, everything: bool) -> None:
    """Show what is in TOPIC: types, versions, keys, gaps, retention; what no projection handles.

    It reads a few thousand events, from the beginning, the end and evenly between; numbers of the
    whole are then estimates.  It commits nothing and joins no consumer group.
    """
    from migrator.projections import contents

    found = contents.look(app.settings, topic, everything=everything)
    app.emit(document(found), text(found))


def document(found: Contents) -> dict[str, Any]:
    """The command's JSON."""
    seen = found.survey
    size, off = seen.bytes_estimate
    return {
        "topic": found.topic.name,
        "topic_id": found.topic.id,
        "complete": seen.complete,
        "events_read": seen.events,
        "offsets_read": seen.covered,
        "events": seen.events_estimate,
        "bytes": size,
        "bytes_off": off,
        "gaps": seen.gaps,
        "tombstones": seen.tombstones,
        "keys": asdict(seen.keys_estimate),
        "keys_in_two_partitions": [
            {"key": key.decode("utf-8", "replace"), "partitions": [one, other]}
            for key, one, other in seen.keys.split
        ],
        "types": [
            asdict(kind)
            | {"handled_by": found.handlers(kind.type), "ignored_by": found.ignorers(kind.type)}
            for kind in found.kinds
        ],
        "unreadable": {
            "events": seen.unreadable_events,
            "first": [asdict(each) for each in seen.unreadable],
        },
        "schemas": [asdict(each) for each in seen.schemas],
        "missing_schemas": seen.missing_schemas.data["schemas"] if seen.missing_schemas else [],
        "projections": found.projections,
        "unhandled": found.unhandled,
        "partitions": [
            asdict(p) | {"written": found.written[p.partition]} for p in found.topic.partitions
        ],
        "policy": None
        if found.policy is None
        else asdict(found.policy) | {"cleanup": sorted(found.policy.cleanup)},
    }


def text(found: Contents) -> str:
    """The same for a person."""
    from migrator.projections.preflight import size_of

    seen, topic = found.survey, found.topic
    size, off = seen.bytes_estimate
    about = "" if seen.complete else "about "
    how = "all were read" if seen.complete else f"{seen.events:,} were read"
    head = f"topic {topic.name}: {len(topic.partitions)} partitions"
    size_said = f"size: {about}{size_of(size)} of keys and values"
    lines = [
        f"{head}, {about}{seen.events_estimate:,} events; {how}",
        size_said + (f", give or take {size_of(off)}" if off else ""),
        f"keys: {_keys(found)}",
        f"retention: {_policy(found)}",
    ]
    if seen.gaps:
        lines.append(
            f"gaps: {seen.gaps:,} of {seen.covered:,} offsets hold no event (control records, aborted "
            "transactions, compaction)"
        )
    lines += ["", *_types(found)]
    lines += [
        f"schema {each.id}{f', {each.name}' if each.name else ''}: the {each.part} of {each.records:,}"
        for each in seen.schemas
    ]
    if seen.missing_schemas:
        lines += seen.missing_schemas.data["schemas"]
    lines += [f"does not decode: {e.said} ({e.place})" for e in seen.unreadable]
    lines += ["", *_partitions(found)]
    if found.unhandled:
        lines += ["", f"no projection handles or ignores: {', '.join(found.unhandled)}"]
    return "\n".join(lines)


def _keys(found: Contents) -> str:
    seen, keys = found.survey, found.survey.keys_estimate
    if keys.low == keys.high:
        said = f"{keys.estimate:,} different"
    else:
        said = f"about {keys.estimate:,} different (between {keys.low:,} and {keys.high:,})"
    without = sum(kind.no_key for kind in seen.kinds.values())
    if without:
        said += f"; {without:,} of the events read have none"
    if seen.keys.split:
        key, one, other = seen.keys.split[0]
        said += f"; in two partitions: {key.decode('utf-8', 'replace')!r} in {one} and {other}"
    return said


def _policy(found: Contents) -> str:
    from migrator.projections.preflight import size_of, span

    policy = found.policy
    if policy is None:
        return "not known, the client may not read the topic's settings"
    parts = [f"cleanup.policy={','.join(sorted(policy.cleanup))}"]
    if "delete" in policy.cleanup:
        ms, size = policy.retention_ms, policy.retention_bytes
        parts.append("kept for ever" if ms is None else f"kept for {span(ms / 1000)}")
        if size is not None:
            parts.append(f"up to {size_of(size)} a partition")
    return ", ".join(parts)


def _types(found: Contents) -> list[str]:
    width = max((len(kind.type) for kind in found.kinds), default=0)
    lines = []
    for kind in found.kinds:
        by, ignored = found.handlers(kind.type), found.ignorers(kind.type)
        versions = ", ".join(f"version {v}: {n:,}" for v, n in sorted(kind.versions.items()))
        who = "handled by " + ", ".join(by) if by else ""
        who += (", " if by and ignored else "") + (
            "ignored by " + ", ".join(ignored) if ignored else ""
        )
        lines.append(
            f"  {kind.type:<{width}}  {kind.events:>9,}  {who or 'nobody handles it'}"
            + (f"  ({versions})" if versions else "")
        )
    return lines


def _partitions(found: Contents) -> list[str]:
    lines = []
    for part in found.topic.partitions:
        behind = found.written[part.partition] - part.end
        lines.append(
            f"  partition {part.partition}: {part.low:,} to {part.end:,}"
            + (f"; {behind:,} more in open transactions" if behind else "")
        )
    return lines
