"""The demo's story: servers, a log, a schema, projections, a change, and the way back.

Every number told is measured in this run; every fact is asked of the tables by SQL.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from migrator.demo import download, facts, produce, project, purchases, records
from migrator.demo.chapters import CHAPTERS
from migrator.demo.facts import Fact, Question
from migrator.demo.generate import OrderLives
from migrator.demo.reader import Reader, Reads
from migrator.demo.servers import Servers, folder, servers
from migrator.demo.telling import Change, Facts, Line, Tell, Typed
from migrator.deploy import rollback
from migrator.migrations.apply import Done
from migrator.migrations.up import up
from migrator.postgres.connect import connect
from migrator.projections.rebuild import Options, Rebuilt, Report, Step, rebuild
from migrator.sandbox.parts import Kind
from migrator.sandbox.session import environment
from migrator.settings import Settings

TOPIC = "orders"
PARTITIONS = 4
# The busiest customer of the log; a reader must get this row at every instant.
READ = "SELECT orders, spent_cents FROM customers WHERE customer_id = '07592'"
ROW = (201, 1_399_093)
REASON = "trying the way back"


@dataclass(frozen=True)
class Wishes:
    """What may be asked of the demo."""

    events: int = 0
    postgres: str = "18"
    sandbox: Kind = "auto"
    keep: bool = False


@dataclass(frozen=True)
class Hammered:
    """What a reader in a tight loop went through.

    `worst_ms` is its longest read of all, `stall_ms` the longest while the tables changed places.
    """

    during: str
    reads: int
    errors: int
    shown: tuple[str, ...]
    worst_ms: float
    stall_ms: float


@dataclass(frozen=True)
class Rebuild:
    """One rebuild in numbers."""

    projections: dict[str, int]
    """The rows of each."""
    checks: int
    events_per_second: int
    held_ms: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What the demo found; `folder` is None where nothing was kept."""

    events: int
    facts: tuple[Fact, ...]
    readers: tuple[Hammered, ...]
    rebuilds: tuple[Rebuild, ...]
    seconds: dict[str, float]
    servers: Servers
    folder: Path | None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point migrator at the servers."""
        return environment(self.servers.database_url, self.servers.bootstrap_servers)

    @property
    def ok(self) -> bool:
        return all(f.ok for f in self.facts) and not any(r.errors for r in self.readers)


def run(wishes: Wishes, tell: Tell) -> Outcome:
    """Play the whole story on servers and files of its own, and return what it found.

    It reads no setting of the user's and touches no database but its own; at any end, also by
    Ctrl-C, its servers and files are gone, unless it succeeds and `keep` was asked for.

    Raises:
        MigratorError: a step failed; a fact that differs is no error but in the outcome.
    """
    began = time.perf_counter()
    with project.alone(), folder(keep=wishes.keep) as root:
        tell(CHAPTERS[0])
        starting = time.perf_counter()
        with servers(
            wishes.postgres, wishes.sandbox, keep=wishes.keep, say=lambda text: tell(Line(text))
        ) as own:
            story = _Story(wishes, tell, own, root)
            story.clock["servers"] = round(time.perf_counter() - starting, 3)
            story.play()
    story.clock["all"] = round(time.perf_counter() - began, 3)
    return story.outcome()


@dataclass
class _Story:
    """Where the story stands."""

    wishes: Wishes
    tell: Tell
    servers: Servers
    root: Path
    events: int = 0
    swapping: float = 0.0
    """When the last swap began, by the monotonic clock."""
    clock: dict[str, float] = field(default_factory=dict)
    found: list[Fact] = field(default_factory=list)
    readers: list[Hammered] = field(default_factory=list)
    rebuilds: list[Rebuild] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lives = OrderLives(self.wishes.events)
        project.lay_out(self.root)
        self.settings: Settings = project.load(
            self.root,
            database_url=self.servers.database_url,
            bootstrap_servers=self.servers.bootstrap_servers,
        )

    def play(self) -> None:
        where = f"{self.servers.database_url} and {self.servers.bootstrap_servers}"
        self.say(f"{self.servers.kind}, up in {self.clock['servers']:.1f} s: {where}")
        acts = (
            self.log,
            self.schema,
            self.projections,
            self.facts,
            self.change,
            self.cut_over,
            self.way_back,
        )
        for chapter, act in zip(CHAPTERS[1:], acts, strict=True):
            self.tell(chapter)
            act()

    def log(self) -> None:
        bought = purchases.parse(download.purchase_log(self.say))
        events = chain(map(records.placed, bought), self.lives)
        kafka = self.settings.kafka_config
        with self.timed("produce"):
            produce.make_topic(kafka, TOPIC, partitions=PARTITIONS)
            self.events = produce.produce(kafka, TOPIC, records.records(events))
        made = f", {self.wishes.events:,} of them made up" if self.wishes.events else ""
        self.say(f"{_rate(self.events, self.clock['produce'], 'written')}{made}")

    def schema(self) -> None:
        self.tell(Typed("migrator up"))
        with self.timed("up"):
            up(self.settings, progress=self.applied)

    def applied(self, step: Any) -> None:
        if isinstance(step, Done):
            self.say(f"{step.revision} applied in {step.duration_ms} ms: {step.message}")

    def projections(self) -> None:
        report = self.rebuilt("rebuild", ["orders", "customers"])
        self.say(_rate(self.events, report.seconds["replay"], "folded into two tables"))

    def facts(self) -> None:
        self.ask(
            facts.of_topic(self.events) + facts.of_cdnow() + facts.of_made_up(self.lives.totals)
        )

    def change(self) -> None:
        self.tell(Change(project.edit_customers(self.root)))

    def cut_over(self) -> None:
        with Reader(self.servers.database_url, READ, ROW) as reader:
            report = self.rebuilt("change", ["customers"])
            done = time.monotonic()
        self.say(_rate(self.events, report.seconds["replay"], "folded into the new table"))
        self.hammered("the rebuild and its cut-over", reader.reads, self.swapping, done)
        self.ask(facts.of_new_column(self.lives.totals))

    def way_back(self) -> None:
        self.tell(Typed(f'migrator rollback --reason "{REASON}"'))
        with self.timed("rollback"), Reader(self.servers.database_url, READ, ROW) as reader:
            self.swapping = time.monotonic()
            self.roll_back(rollback.plan(self.settings))
            done = time.monotonic()
        self.hammered("the swap-back", reader.reads, self.swapping, done)
        self.tell(Typed(f'migrator rollback --to 0002 --reason "{REASON}"'))
        self.roll_back(rollback.plan(self.settings, to="0002"))
        self.ask(facts.of_way_back(self.lives.totals))

    def roll_back(self, planned: rollback.Plan) -> None:
        done = rollback.rollback(self.settings, planned, reason=REASON)
        for entry in done.undone:
            if done.swapped:
                self.say(
                    f"{entry.subject} reads build {entry.replaced_build} again; the tables were "
                    f"locked for {done.swapped.held_ms:.0f} ms"
                )
            else:
                self.say(f"revision {entry.subject} is undone by the script in the database")

    def rebuilt(self, name: str, projections: list[str]) -> Report:
        flags = "".join(f" --projection {each}" for each in projections)
        self.tell(Typed(f"migrator rebuild-projections{flags}"))
        with self.timed(name):
            report = rebuild(self.settings, projections, Options(), listener=self.heard)
        self.rebuilds.append(_numbers(report, self.events))
        for each in report.projections:
            self.say(
                f"{each.projection}: build {each.build}, {each.rows:,} rows, "
                f"{_passed(each)} checks passed"
            )
        assert report.swapped
        kept = [m.outgoing for m in report.swapped.moves if m.outgoing]
        also = f"; build {kept[0].build} is kept for rollback" if kept else ""
        self.say(f"live; the cut-over held its locks for {report.swapped.held_ms:.0f} ms{also}")
        return report

    def heard(self, step: Any) -> None:
        if isinstance(step, Step) and step.step == "cut-over":
            self.swapping = time.monotonic()

    def hammered(self, during: str, reads: Reads, since: float, until: float) -> None:
        seen = Hammered(
            during,
            reads.reads,
            reads.errors,
            reads.shown,
            round(reads.worst_ms(float("-inf"), float("inf")), 1),
            round(reads.worst_ms(since, until), 1),
        )
        self.readers.append(seen)
        self.say(
            f"reader during {during}: {seen.reads:,} reads, {seen.errors} errors, "
            f"worst stall {seen.stall_ms:.1f} ms"
        )
        for error in seen.shown:
            self.say(f"  {error}")

    def ask(self, questions: list[Question]) -> None:
        with connect(self.settings, "demo facts", autocommit=True) as conn:
            found = facts.ask(conn, questions)
        self.found += found
        self.tell(Facts(tuple(found)))

    def outcome(self) -> Outcome:
        return Outcome(
            self.events,
            tuple(self.found),
            tuple(self.readers),
            tuple(self.rebuilds),
            self.clock,
            self.servers,
            self.root if self.wishes.keep else None,
        )

    def say(self, text: str) -> None:
        self.tell(Line(text))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.clock[name] = round(time.perf_counter() - began, 3)


def _passed(rebuilt: Rebuilt) -> int:
    return sum(each.verdict == "passed" for each in rebuilt.results)


def _rate(events: int, seconds: float, what: str) -> str:
    return f"{events:,} events {what} in {seconds:.1f} s, {events / seconds:,.0f} a second"


def _numbers(report: Report, events: int) -> Rebuild:
    assert report.swapped
    return Rebuild(
        projections={each.projection: each.rows for each in report.projections},
        checks=sum(map(_passed, report.projections)),
        events_per_second=round(events / report.seconds["replay"]),
        held_ms=round(report.swapped.held_ms, 1),
        seconds=report.seconds,
    )
