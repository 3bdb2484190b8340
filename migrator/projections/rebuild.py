"""Rebuild projections: preflight, replay, load, verify, cut over.

Every step is saved in migrator.build, so the same command after a kill goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from psycopg import sql

from migrator.errors import MigratorError, Refused, UsageError
from migrator.executors import executor
from migrator.kafka import topics
from migrator.kafka.log import Limits, Part
from migrator.kafka.topics import TopicRange
from migrator.logs import bound, logger
from migrator.postgres import catalog, ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import build as builds
from migrator.projections import (
    carry,
    catch_up,
    checks,
    quarantine,
    registry,
    shadow,
    swap,
    swap_sql,
)
from migrator.projections.build import Build
from migrator.projections.checks import Result
from migrator.projections.diff_columns import columns_of
from migrator.projections.diff_verdict import Asked
from migrator.projections.move import live_build, move_for
from migrator.projections.preflight import Preflight, preflight
from migrator.projections.quarantine import Quarantined
from migrator.projections.registry import Registered
from migrator.projections.replay import Progress, Task, replay
from migrator.projections.reporter import Reporter
from migrator.projections.store import Target
from migrator.projections.turn import turn

if TYPE_CHECKING:
    from migrator.settings import Settings

READ_AHEAD_SHARE = 4
MOST_CATCH_UPS, FEW_EVENTS = 5, 10_000


@dataclass(frozen=True)
class Options:
    """What the command line may ask for beside the names."""

    cut_over: bool = True
    restart: bool = False
    allow: frozenset[str] = frozenset()
    max_mb_per_s: float | None = None
    quarantine: int = 0
    accept_diff: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def allowed(self) -> frozenset[str]:
        """What the preflight need not refuse: with a quarantine, events that do not decode."""
        return self.allow | {"undecodable"} if self.quarantine else self.allow


@dataclass(frozen=True)
class Step:
    """A step has begun; `detail` is for a person."""

    step: str
    detail: str


Listener = Callable[[Step | Progress | Quarantined], None]


@dataclass(frozen=True)
class Rebuilt:
    """One rebuilt projection. `lag_events` is what has come to its topics since they were read.

    `quarantined` is how many events it goes without.
    """

    projection: str
    build: int
    rows: int
    events: int
    lag_events: int
    quarantined: int
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Report:
    """What a rebuild did; `swapped` is None where it stopped at verified."""

    run: UUID
    projections: tuple[Rebuilt, ...]
    swapped: swap.Swapped | None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Work:
    """One projection on its way through the steps."""

    registered: Registered
    topics: tuple[TopicRange, ...]
    build: Build


def rebuild(
    settings: Settings,
    names: Sequence[str],
    options: Options = Options(),
    *,
    listener: Listener = lambda _said: None,
) -> Report:
    """Build the named projections anew from their topics and make them live.

    Live tables are not touched before the cut-over, which moves all of them in one transaction.
    Killed anywhere, the same call goes on from what is committed.

    Raises:
        UsageError: an unknown projection, topic, or a wrong definition.
        Refused: a safety rule or a check forbids it; the message names the flag, if there is one.
        Busy: another rebuild of the same projection is running, or the swap found no quiet moment.
    """
    executor.chosen(settings)  # before anything is written
    chosen = registry.choose(registry.load(settings.projections_dir), tuple(names))
    clock = _Clock(listener)
    with ExitStack() as stack:
        conn = stack.enter_context(connect(settings, "rebuild", statement_timeout_ms=0))
        conn.autocommit = True
        _refuse_wrong_names(conn, chosen, options)
        with clock.step("preflight", "looking at the topics"):
            seen = look(settings, chosen, options, conn)
            _tell(listener, seen)
            seen.refuse()
        ranges, allowed = seen.topics, seen.allowed
        stack.enter_context(turn(settings, (r.name for r in chosen)))
        with clock.step("prepare", "making the shadow tables"):
            work = [_prepare(conn, settings, r, ranges, options, allowed) for r in chosen]
        for names_of_topics in dict.fromkeys(r.definition.topics for r in chosen):
            one_pass = [w for w in work if w.registered.definition.topics == names_of_topics]
            _replay(conn, settings, one_pass, options, clock)
        for each in work:
            _load(conn, each, clock)
        results = [_verify(conn, settings, each, options, clock) for each in work]
        run, swapped = uuid4(), None
        if options.cut_over:
            with clock.step("cut-over", "making the new tables live", *work):
                moves = [
                    replace(
                        move_for(conn, _now(conn, each).build),
                        definition=each.registered.definition,
                    )
                    for each in work
                ]
                reason = checks.accepted(conn, [each.build for each in work])
                swapped = swap.swap(conn, settings, moves, run=run, reason=reason)
        ends = {name: topics.describe(settings.kafka_config, name) for name in ranges}
        rebuilt = [_rebuilt(conn, w, r, ends) for w, r in zip(work, results, strict=True)]
        return Report(run, tuple(rebuilt), swapped, clock.seconds)


def _refuse_wrong_names(conn: Connection, chosen: Sequence[Registered], options: Options) -> None:
    """Refuse a `--map` that fits none of the projections, before hours go into a build."""
    for old, new in options.renamed:
        lives = {
            r.name: _live_columns(conn, r) for r in chosen if new in r.definition.table.columns
        }
        if not lives:
            names = {column.name for r in chosen for column in r.definition.table.columns}
            raise UsageError.unknown("column", new, names, next_step="--map OLD=NEW")
        if not any(old in columns for columns in lives.values()):
            names = {name for columns in lives.values() for name in columns}
            raise UsageError.unknown("column of live", old, names, next_step="--map OLD=NEW")


def _live_columns(conn: Connection, registered: Registered) -> list[str]:
    if not ledger.exists(conn):
        return []
    live = builds.find(conn, registered.name, ["live"])
    return list(columns_of(conn, live[0].target)) if live else []


def look(
    settings: Settings, chosen: Sequence[Registered], options: Options, conn: Connection | None
) -> Preflight:
    """The preflight of a rebuild with these options."""
    return preflight(
        settings,
        chosen,
        allow=options.allowed,
        restart=options.restart,
        max_mb_per_s=options.max_mb_per_s,
        conn=conn,
    )


def _tell(listener: Listener, seen: Preflight) -> None:
    for each in seen.findings:
        if each.verdict != "refused":
            listener(Step(each.verdict, each.found))


def _prepare(
    conn: Connection,
    settings: Settings,
    registered: Registered,
    ranges: dict[str, TopicRange],
    options: Options,
    allowed: Sequence[str],
) -> _Work:
    """Find the unfinished build of this very definition, or begin one; clear others away."""
    schema = registered.definition.schema or settings.projections.schema_
    table = registered.definition.table
    shape = catalog.formatted_types(conn, shadow.type_names(table))
    live_build(conn, registered.name, schema, table.name, shape)
    found = builds.find(conn, registered.name, (*builds.UNFINISHED, "failed"))
    resumable = None
    for build in found:
        ours = build.definition_hash == registered.hash and build.state in builds.UNFINISHED
        if ours and resumable is None and not options.restart:
            resumable = build
        else:
            builds.drop(conn, build, "aborted")
    if resumable:
        builds.allow(conn, resumable, allowed)
    own = tuple(ranges[name] for name in registered.definition.topics)
    build = resumable or builds.create(conn, registered, schema, own, allowed)
    return _Work(registered, own, build)


def _now(conn: Connection, work: _Work) -> _Work:
    """The same work with its build as the database has it."""
    (build,) = [
        b
        for b in builds.find(conn, work.registered.name, builds.UNFINISHED)
        if b.build == work.build.build
    ]
    work.build = build
    return work


def _replay(
    conn: Connection, settings: Settings, work: list[_Work], options: Options, clock: _Clock
) -> None:
    """One pass over a topic, or over several that are merged, for all builds that still need it."""
    pending = [w for w in work if w.build.state in ("created", "replaying")]
    if not pending:
        return
    read = pending[0].topics
    names = ", ".join(w.registered.name for w in pending)
    told = " and ".join(topic.name for topic in read)
    with clock.step("replay", f"folding topic {told} into {names}", *pending):
        for each in pending:
            builds.start_replay(conn, each.build, read)
        tasks = _tasks(settings, conn, pending, options)
        if tasks:
            reporter = Reporter(conn, tasks, clock.listener)
            executor.chosen(settings).run(
                replay, tasks, reporter.heard, lambda task: _left_of(conn, pending, task)
            )
            reporter.forget()
        for topic in read:
            _still_the_same(settings, topic)
        left = {w.registered.name: _left(conn, w) for w in pending}
        if any(left.values()):
            raise MigratorError(
                f"the replay ended before its end offsets: {left}",
                next_step="run the same command again: it goes on from what is committed",
            )
    for each in pending:
        _now(conn, each)


def _left(conn: Connection, work: _Work) -> list[Part]:
    return builds.parts_left(conn, work.build, work.registered.definition.topics)


def _still_the_same(settings: Settings, topic: TopicRange) -> None:
    """A topic that was made anew while it was read may have answered from both."""
    now = topics.describe(settings.kafka_config, topic.name)
    if now.id != topic.id:
        raise MigratorError(
            f"topic {topic.name} was deleted and made anew while it was read",
            expected=f"topic id {topic.id}, found {now.id}; live is untouched",
            next_step="migrator rebuild-projections --restart reads the new one from its start",
            topic=topic.name,
            topic_id=now.id,
        )


def _tasks(settings: Settings, conn: Connection, work: list[_Work], options: Options) -> list[Task]:
    """Deal whole partitions out to workers, the largest first."""
    targets = _targets(conn, work)
    hands: list[list[Part]] = [[] for _ in range(settings.projections.workers)]
    for part in sorted(targets, key=_events, reverse=True):
        min(hands, key=lambda hand: sum(map(_events, hand))).append(part)
    hands = [hand for hand in hands if hand]
    return [
        Task(
            settings=settings,
            directory=settings.projections_dir,
            topics={topic.name: topic.id for topic in work[0].topics},
            targets={part: targets[part] for part in hand},
            memory_bytes=_memory(settings, len(hands)),
            limits=_limits(settings, options, len(hands)),
            quarantine=options.quarantine,
        )
        for hand in hands
    ]


def _events(part: Part) -> int:
    return sum(each.end - each.start for each in part)


def _targets(conn: Connection, work: list[_Work]) -> dict[Part, tuple[Target, ...]]:
    """What is still to be read, and the builds that each stretch is folded into."""
    targets: dict[Part, tuple[Target, ...]] = {}
    for each in work:
        target = Target(
            each.build.build, each.build.schema, each.registered.name, each.registered.hash
        )
        for part in _left(conn, each):
            targets[part] = (*targets.get(part, ()), target)
    return targets


def _left_of(conn: Connection, work: list[_Work], task: Task) -> Task | None:
    """What a worker has left of its task, from the committed positions on; None if nothing."""
    partitions = {part[0].partition for part in task.targets}
    left = {p: t for p, t in _targets(conn, work).items() if p[0].partition in partitions}
    return replace(task, targets=left) if left else None


def _memory(settings: Settings, workers: int) -> int:
    """One worker's share, in bytes; a tenth of the whole is this process's own."""
    return settings.projections.memory_mb * 900_000 // workers


def _limits(settings: Settings, options: Options, workers: int) -> Limits:
    """One worker's share of what the whole replay may take."""
    rate = options.max_mb_per_s
    return Limits(
        memory_bytes=_memory(settings, workers) // READ_AHEAD_SHARE,
        bytes_per_s=None if rate is None else rate * 1_000_000 / workers,
        quiet_s=settings.projections.no_progress_s,
    )


def _load(conn: Connection, work: _Work, clock: _Clock) -> None:
    if work.build.state == "replaying":
        with clock.step("load", f"indexing {work.registered.name}", work):
            try:
                builds.load(conn, work.build, work.registered)
            except Refused as exc:
                builds.fail(conn, work.build, exc.found)
                raise
        _now(conn, work)


def _catch_up(conn: Connection, settings: Settings, work: _Work, clock: _Clock) -> None:
    """Apply what has come while the topics were read, so that what is checked is what goes live.

    Until little is left; the swap applies what the live build has read of the rest.
    """
    for _ in range(MOST_CATCH_UPS):
        ends = {
            (topic.name, part.partition): part.end
            for topic in (topics.describe(settings.kafka_config, t.name) for t in work.topics)
            for part in topic.partitions
        }
        lag = catch_up.lag(conn, work.build, ends)
        if lag == 0:
            return
        with (
            clock.step(
                "catch-up", f"applying {lag:,} events that have come to {work.registered.name}"
            ),
            builds.recounted(conn, work.build),
        ):
            catch_up.catch_up(
                conn, settings, work.build, work.registered.definition, work.build.table
            )
        if lag < FEW_EVENTS:
            return


def _verify(
    conn: Connection, settings: Settings, work: _Work, options: Options, clock: _Clock
) -> list[Result]:
    results: list[Result] = []
    if work.build.state == "verified" and not options.cut_over:
        _catch_up(conn, settings, work, clock)  # it may be read beside the live one
        _now(conn, work)
    if work.build.state == "loaded":
        with clock.step("load", f"vacuuming {work.registered.name}", work):
            for live in builds.find(conn, work.registered.name, ["live"]):
                carry.prepare(conn, live, work.build)
                carry.let_read(conn, live, work.build)
            builds.vacuum(conn, work.build)
        _catch_up(conn, settings, work, clock)
        with clock.step("verify", f"checking {work.registered.name}", work):
            results = checks.verify(
                conn,
                settings,
                work.build,
                work.registered,
                work.topics,
                asked=Asked(settings.projections.max_diff, options.accept_diff),
                renamed=dict(options.renamed),
            )
        _now(conn, work)
    return results


def _rebuilt(
    conn: Connection, work: _Work, results: list[Result], ends: dict[str, TopicRange]
) -> Rebuilt:
    positions = builds.positions(conn, work.build.build)
    reached = {(p.topic, p.partition): p.next_offset for p in positions}
    now = [(topic.name, p) for topic in work.topics for p in ends[topic.name].partitions]
    return Rebuilt(
        projection=work.registered.name,
        build=work.build.build,
        rows=work.build.rows or 0,
        events=sum(p.events for p in positions),
        lag_events=sum(max(p.end - reached.get((name, p.partition), 0), 0) for name, p in now),
        quarantined=quarantine.count(conn, work.build.build),
        results=tuple(results),
    )


class _Clock:
    """Tells the listener of each step and keeps how long it took."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, detail: str, *work: _Work) -> Iterator[None]:
        self.listener(Step(name, detail))
        ids = {"build": ", ".join(str(each.build.build) for each in work)} if work else {}
        with bound(step=name, **ids):
            logger().info("step begins", detail=detail)
            began = time.perf_counter()
            try:
                yield
            finally:
                took = time.perf_counter() - began
                self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
                logger().info("step ended", seconds=round(took, 3))


@dataclass(frozen=True)
class Planned:
    """What a rebuild would do to one projection."""

    projection: str
    topic: str
    events: int
    resumes: int | None
    replaces: int | None
    statements: tuple[str, ...]


def plan(
    settings: Settings, names: Sequence[str], options: Options
) -> tuple[list[Planned], Preflight]:
    """Say what `rebuild` would do, with its SQL, and what its preflight finds; changes nothing.

    What the preflight refuses is in its answer, and not raised.
    """
    executor.chosen(settings)
    chosen = registry.choose(registry.load(settings.projections_dir), tuple(names))
    with connect(settings, "plan") as conn:
        conn.read_only = True
        known = ledger.exists(conn)
        seen = look(settings, chosen, options, conn)
        return [_planned(conn, settings, r, seen.topics, known=known) for r in chosen], seen


def _planned(
    conn: Connection,
    settings: Settings,
    registered: Registered,
    ranges: dict[str, TopicRange],
    *,
    known: bool,
) -> Planned:
    definition, resumes, live = registered.definition, None, None
    target = definition.schema or settings.projections.schema_
    shape = catalog.formatted_types(conn, shadow.type_names(definition.table))
    if known:
        unfinished = builds.find(conn, registered.name, builds.UNFINISHED)
        resumes = next((b.build for b in unfinished if b.definition_hash == registered.hash), None)
        live = live_build(conn, registered.name, target, definition.table.name, shape)
    schema = f"migrator_build_{resumes or 'N'}"
    made = schema, definition.table.name
    return Planned(
        registered.name,
        " and ".join(definition.topics),
        sum(ranges[name].events for name in definition.topics),
        resumes,
        live.build if live else None,
        (
            *shadow.create_statements(definition.table, schema),
            *(shadow.create_statements(definition.state, schema) if definition.reduced else ()),
            *shadow.merge_statements(definition, schema),
            *shadow.load_statements(definition.table, schema),
            f"VACUUM (FREEZE, ANALYZE) {sql.Identifier(*made).as_string()}",
            *swap_sql.foreseen(conn, settings, registered.name, live, made, target, shape),
        ),
    )
