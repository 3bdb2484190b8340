"""Look at everything that could spoil a rebuild, before anything is written; read-only.

Each pitfall is a finding: ok to go, a warning, or refused. What may be allowed has a name for
`--allow`; what may not is corrected in the definition, or leads to `--restart`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from migrator.errors import Refused, UsageError
from migrator.kafka import topics
from migrator.kafka.topics import Policy, TopicRange
from migrator.postgres import ledger
from migrator.projections import build as builds
from migrator.projections import estimate as estimates
from migrator.projections.definition import Definition
from migrator.projections.estimate import Estimate
from migrator.projections.events import TOMBSTONE
from migrator.projections.survey import Survey, survey

if TYPE_CHECKING:
    from migrator.postgres.connect import Connection
    from migrator.projections.registry import Registered
    from migrator.settings import Settings

ALLOWABLE = {
    "empty": "a topic without events",
    "truncated": "a topic whose beginning is deleted",
    "retention": "a topic whose beginning will be deleted before the replay is done",
    "compacted": "a compacted topic: older events of a key are missing",
    "hanging": "a transaction that does not end: what lies behind it is not read",
    "split-keys": "one key in two partitions: the order of its events is not defined",
    "null-keys": "events without a key under a projection with a key of its own",
    "no-schema": "schemas that the registry does not have: the replay stops at the first event of one",
    "undecodable": "events that do not decode: the replay stops at the first",
    "disk": "a table that may not fit on PostgreSQL's disk",
}
MARGIN_S = 600.0


@dataclass(frozen=True)
class Finding:
    """One thing that was found; `rule` is its name for --allow, where it is in ALLOWABLE."""

    rule: str
    verdict: Literal["refused", "allowed", "warning"]
    found: str
    expected: str = ""
    next_step: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preflight:
    """What was found of every topic, and what a rebuild will take."""

    topics: dict[str, TopicRange]
    surveys: dict[str, Survey]
    findings: tuple[Finding, ...]
    estimates: tuple[Estimate, ...]

    @property
    def refused(self) -> list[Finding]:
        return [f for f in self.findings if f.verdict == "refused"]

    @property
    def allowed(self) -> list[str]:
        """The names that were needed to go on."""
        return sorted({f.rule for f in self.findings if f.verdict == "allowed"})

    def refuse(self) -> None:
        """Stop here where a finding forbids to go on.

        Raises:
            Refused: with everything that was found, not only the first.
        """
        refused = self.refused
        if refused:
            several = {"findings": [asdict(f) for f in refused]}
            raise Refused(
                "\n".join(f.found for f in refused),
                expected="; ".join(dict.fromkeys(f.expected for f in refused if f.expected)),
                next_step="; ".join(dict.fromkeys(f.next_step for f in refused if f.next_step)),
                **(refused[0].data if len(refused) == 1 else several),
            )


def check_names(allow: Iterable[str]) -> None:
    """Raise UsageError for a name after --allow that is not one."""
    for name in allow:
        if name not in ALLOWABLE:
            raise UsageError.unknown("name after --allow", name, ALLOWABLE)


def preflight(
    settings: Settings,
    chosen: Sequence[Registered],
    *,
    allow: frozenset[str] = frozenset(),
    restart: bool = False,
    max_mb_per_s: float | None = None,
    conn: Connection | None = None,
) -> Preflight:
    """Look at every topic of the projections, and at the builds that would go on.

    Raises:
        UsageError: a topic does not exist, or a name in `allow` is not one.
        MigratorError: a topic cannot be read.
    """
    check_names(allow)
    names = dict.fromkeys(name for r in chosen for name in r.definition.topics)
    described = {name: topics.describe(settings.kafka_config, name) for name in names}
    surveys: dict[str, Survey] = {}
    findings = [f for r in chosen for f in partitioned_alike(r.definition, described)]
    weights: list[Estimate] = []
    known = conn is not None and ledger.exists(conn)
    for name, topic in described.items():
        own = [r for r in chosen if name in r.definition.topics]
        seen = survey(
            settings,
            topic,
            [r.definition for r in own],
            events=settings.projections.sample_events,
        )
        surveys[name] = seen
        of_topic = [
            estimates.estimate(settings, r, seen, conn if known else None, max_mb_per_s)
            for r in own
        ]
        weights += of_topic
        findings += _of_topic(settings, topic, seen, of_topic)
        for registered in own:
            findings += _of_projection(registered.definition, seen)
            if conn is not None and known and not restart:
                findings += _of_unfinished(conn, registered, topic)
    return Preflight(described, surveys, tuple(_judged(f, allow) for f in findings), tuple(weights))


def _judged(found: Finding, allow: frozenset[str]) -> Finding:
    if found.verdict == "refused" and found.rule in allow:
        return Finding(found.rule, "allowed", found.found, found.expected, "", found.data)
    return found


def _refused(rule: str, found: str, expected: str, why: str, **data: Any) -> Finding:
    step = f"--allow {rule}, {why}" if rule in ALLOWABLE else why
    return Finding(rule, "refused", found, expected, step, data)


def _of_topic(
    settings: Settings, topic: TopicRange, seen: Survey, weights: Sequence[Estimate]
) -> Iterator[Finding]:
    seconds = max((w.seconds for w in weights), default=0.0)
    yield from truncated(topic)
    if topic.events == 0:
        yield _refused(
            "empty",
            f"topic {topic.name} is empty",
            "events; a rebuild now would make an empty table live",
            "if that is meant",
            topic=topic.name,
        )
    policy = topics.policy(settings.kafka_config, topic.name)
    if policy is None:
        yield Finding(
            "policy",
            "warning",
            f"the broker does not tell the settings of topic {topic.name}: whether it is compacted "
            "and how long it keeps events is not known",
            next_step="let the client DESCRIBE_CONFIGS the topic",
            data={"topic": topic.name},
        )
    else:
        yield from compacted(topic, policy, seconds)
        yield from retention(topic, policy, seen, seconds, now_s=time.time())
    yield from _hanging(settings, topic)
    yield from _no_schema(topic, seen)
    yield from split_keys(topic, seen, weights)
    for each in weights:
        yield from _room(settings, each)


def partitioned_alike(
    definition: Definition, topics: Mapping[str, TopicRange]
) -> Iterator[Finding]:
    """Topics that are merged within a key have a key's events in the same partition. Pure."""
    counts = {name: len(topics[name].partitions) for name in definition.topics}
    if len(set(counts.values())) > 1:
        yield _refused(
            "partition-counts",
            f"the topics of {definition.name} are not partitioned alike: "
            + ", ".join(f"{name} has {count} partitions" for name, count in counts.items()),
            "as many partitions in each, so that a key's events of all of them lie together",
            "produce one of them anew, with as many partitions as the other",
            projection=definition.name,
            partitions=counts,
        )


def truncated(topic: TopicRange) -> Iterator[Finding]:
    """The log does not begin at offset 0 any more. Pure."""
    gone = [p for p in topic.partitions if p.low > 0]
    if gone:
        yield _refused(
            "truncated",
            f"the beginning of topic {topic.name} has been deleted: "
            + ", ".join(f"partition {p.partition} starts at {p.low}" for p in gone),
            "the whole history, from offset 0",
            "if the projection does not need what is gone",
            topic=topic.name,
            low={p.partition: p.low for p in gone},
        )


def compacted(topic: TopicRange, policy: Policy, seconds: float) -> Iterator[Finding]:
    """Only the last events of a key are sure to be there. Pure."""
    if "compact" not in policy.cleanup:
        return
    yield _refused(
        "compacted",
        f"topic {topic.name} is compacted (cleanup.policy={','.join(sorted(policy.cleanup))}): "
        "of a key only the newest record is sure to be there",
        "every event of a key; sums, counts and whatever an earlier event has set come out wrong",
        "if the newest record of a key says everything that the projection needs",
        topic=topic.name,
    )
    kept_s = policy.delete_retention_ms / 1000
    if seconds > kept_s / 2:
        yield Finding(
            "tombstones",
            "warning",
            f"topic {topic.name} forgets tombstones after {span(kept_s)} (delete.retention.ms), and the "
            f"replay will take about {span(seconds)}: a row may stay that was deleted meanwhile",
            expected="a replay that is much shorter",
            next_step="raise delete.retention.ms for its time",
            data={"topic": topic.name},
        )


def retention(
    topic: TopicRange, policy: Policy, seen: Survey, seconds: float, *, now_s: float
) -> Iterator[Finding]:
    """The log's beginning will be deleted before it has been read, or soon is too large. Pure."""
    if "delete" not in policy.cleanup:
        return
    oldest = min(seen.oldest_ms.values(), default=None)
    if policy.retention_ms is not None and oldest is not None:
        left_s = oldest / 1000 + policy.retention_ms / 1000 - now_s
        if left_s < max(2 * seconds, MARGIN_S):
            when = f"in about {span(left_s)}" if left_s > 0 else "at any moment"
            yield _refused(
                "retention",
                f"topic {topic.name} keeps events for {span(policy.retention_ms / 1000)} "
                f"(retention.ms), and its oldest is {span(now_s - oldest / 1000)} old: it is deleted "
                f"{when}, and the replay takes about {span(seconds)}",
                "the beginning to stay until it has been read",
                "if it may be lost; or set retention.ms=-1 for the time of the rebuild",
                topic=topic.name,
            )
    size, _ = seen.bytes_estimate
    largest = max((p.end - p.low for p in topic.partitions), default=0)
    largest_bytes = size * largest / topic.events if topic.events else 0
    if policy.retention_bytes is not None and largest_bytes > 0.8 * policy.retention_bytes:
        yield Finding(
            "retention",
            "warning",
            f"the largest partition of topic {topic.name} holds up to {size_of(largest_bytes)} before "
            f"compression, and retention.bytes is {size_of(policy.retention_bytes)}: its beginning "
            "may be deleted as it grows",
            next_step="set retention.bytes=-1 for the time of the rebuild",
            data={"topic": topic.name},
        )


def _hanging(settings: Settings, topic: TopicRange) -> Iterator[Finding]:
    wait_s = settings.projections.hanging_transaction_s
    stuck = topics.stuck(settings.kafka_config, topic, wait_s)
    if stuck:
        behind = sum(high - end for end, high in stuck.values())
        yield _refused(
            "hanging",
            f"a transaction in topic {topic.name} does not end: for {wait_s:g} s nothing has moved in "
            + ", ".join(
                f"partition {p} at offset {end} (written up to {high})"
                for p, (end, high) in stuck.items()
            ),
            f"the last stable offset to move on; up to {behind} events behind it cannot be read",
            "if they may be missing; else end it: kafka-transactions.sh find-hanging, abort",
            topic=topic.name,
            partitions={p: {"end": end, "written": high} for p, (end, high) in stuck.items()},
        )


def _no_schema(topic: TopicRange, seen: Survey) -> Iterator[Finding]:
    missing = seen.missing_schemas
    if missing is not None:
        yield Finding(
            "no-schema",
            "refused",
            f"topic {topic.name}: {missing.found}",
            missing.expected,
            f"{missing.next_step}; to let the replay stop there instead: --allow no-schema",
            {"topic": topic.name, **missing.data},
        )


def split_keys(topic: TopicRange, seen: Survey, weights: Sequence[Estimate]) -> Iterator[Finding]:
    """A key was met in two partitions, under a projection that takes the record's key. Pure."""
    if not seen.keys.split or all(w.own_key for w in weights):
        return
    key, one, other = seen.keys.split[0]
    yield _refused(
        "split-keys",
        f"a key was met in two partitions of topic {topic.name}: {key.decode('utf-8', 'replace')!r} "
        f"in {one} and {other}",
        "every key in one partition, or the order between its events is not defined; partitions were "
        "added, or two producers partition differently",
        "if no row of such a key matters; else produce the topic anew. A key with rows in both "
        "partitions stops the load in any case",
        topic=topic.name,
        key=key.decode("utf-8", "replace"),
        partitions=[one, other],
    )


def _of_projection(definition: Definition, seen: Survey) -> Iterator[Finding]:
    handled = {**definition.handlers, TOMBSTONE: None}
    for kind in seen.kinds.values():
        if kind.type in handled or kind.type in definition.ignores:
            continue
        yield Finding(
            "unhandled",
            "refused",
            f"{definition.name} has no handler for {kind.type!r} ({kind.first})",
            "a method with @on, or the type in ignores",
            f'add @on(...) to the projection, or ignores = ("{kind.type}",)',
            {"event_type": kind.type, "projection": definition.name, **vars(kind.first)},
        )
    yield from _undecodable(definition, seen)
    yield from _null_keys(definition, seen)


def _undecodable(definition: Definition, seen: Survey) -> Iterator[Finding]:
    for each in seen.unreadable:
        if each.type is not None and each.type not in definition.handlers:
            continue
        of_type = "" if each.type is None else f"{each.type}: "
        step = each.next_step or "correct the event class or [topics] in migrator.toml"
        yield Finding(
            "undecodable",
            "refused",
            f"an event does not decode: {of_type}{each.said} ({each.place})",
            "a payload as the event class says, in the envelope that [topics] says",
            f"{step}; to let the replay stop there instead: --allow undecodable; "
            "to go on without up to N of them: --quarantine N",
            vars(each.place),
        )
        return


def _null_keys(definition: Definition, seen: Survey) -> Iterator[Finding]:
    for kind in seen.kinds.values():
        place = kind.keyless
        folds = kind.type in definition.handlers or kind.type == TOMBSTONE
        if place is None or not folds or kind.type in definition.ignores:
            continue
        if definition.key is not None and definition.reduced:
            return
        if definition.key is None:
            yield Finding(
                "null-keys",
                "refused",
                f"the record has no key ({place}), and {definition.name} takes its key from there",
                "a key in every record that is folded",
                "take it from the event: key=lambda event: ..., co_partitioned=True",
                {**vars(place), "projection": definition.name},
            )
            return
        yield _refused(
            "null-keys",
            f"the record has no key ({place}): such events go to any partition, and "
            f"{definition.name} promises that its own key stays in one",
            "co_partitioned=True to hold",
            "if the producer chooses the partition by itself",
            **vars(place),
            projection=definition.name,
        )
        return


def _of_unfinished(
    conn: Connection, registered: Registered, topic: TopicRange
) -> Iterator[Finding]:
    """Whether the topic is still the one that an unfinished build began with."""
    for build in builds.find(conn, registered.name, ("created", "replaying")):
        if build.definition_hash == registered.hash:
            held = builds.positions(conn, build.build)
            for rule, found in builds.differences(held, topic):
                yield Finding(
                    rule,
                    "refused",
                    f"build {build.build} of {registered.name} cannot go on: {found}",
                    "the same topic id, the same partitions, and every offset that is still to be read",
                    f"migrator rebuild-projections --restart --projection {registered.name} "
                    "starts over",
                    {"topic": topic.name, "build": build.build},
                )
            return


def _room(settings: Settings, need: Estimate) -> Iterator[Finding]:
    free = need.disk_free_bytes
    if free is not None and need.disk_bytes > free:
        yield _refused(
            "disk",
            f"{need.projection} may take {size_of(need.disk_bytes)}, and PostgreSQL's disk has "
            f"{size_of(free)} left",
            "room for the new table beside the live one",
            "if the estimate is wrong",
            projection=need.projection,
        )
    budget = settings.projections.memory_mb * 1_000_000
    if need.memory_bytes > budget:
        yield Finding(
            "memory",
            "warning",
            f"the rows of {need.projection} may take {size_of(need.memory_bytes)} of memory, and "
            f"memory_mb is {settings.projections.memory_mb}: what does not fit is spilled to the "
            "database, which takes longer",
            next_step="raise memory_mb, where the machine has it",
            data={"projection": need.projection},
        )


def span(seconds: float) -> str:
    """A length of time for a person."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def size_of(number: float) -> str:
    """A number of bytes for a person."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number:.0f} B"
