"""Event logs that nobody here wrote, folded through Kafka, equal what an independent script found."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from migrator.deploy import rollback
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.catch_up import catch_up
from migrator.projections.rebuild import rebuild
from tests.projects import write

LOGS = Path(__file__).parents[2].parent / "shared" / "data" / "events"

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason=f"the event logs are not at {LOGS}")

EVENTS = """
    from typing import Any
    from datetime import datetime
    from migrator import Event, Meta, Projection, on
    from sqlalchemy import BigInteger
    from sqlalchemy.orm import Mapped, mapped_column

    TYPES = {types!r}
    EVENTS = [type(Event)(f"Event{{n}}", (Event,), {{}}, type=name) for n, name in enumerate(TYPES)]

    class Life(Projection, topic="{topic}"):
        '''One row per key: how often it was touched, and its first and last event.'''
        __tablename__ = "lives"
        key: Mapped[str] = mapped_column(primary_key=True)
        n: Mapped[int] = mapped_column(default=0)
        first_type: Mapped[str | None]
        first_at: Mapped[datetime | None]
        last_type: Mapped[str]
        last_at: Mapped[datetime]
        last_id: Mapped[str]

        @on(*EVENTS)
        def touched(self, event: Event, meta: Meta) -> None:
            self.n += 1
            if self.first_type is None:
                self.first_type, self.first_at = meta.type, meta.timestamp
            self.last_type, self.last_at, self.last_id = meta.type, meta.timestamp, meta.id

    class Total(Projection, topic="{topic}.one", key=lambda event: "all", co_partitioned=True):
        '''The whole log in one row.'''
        __tablename__ = "totals"
        id: Mapped[str] = mapped_column(primary_key=True)
        events: Mapped[int] = mapped_column(default=0)
        types: Mapped[dict[str, Any]] = mapped_column(default=dict)
        by_month: Mapped[dict[str, Any]] = mapped_column(default=dict)

        @on(*EVENTS)
        def counted(self, event: Event, meta: Meta) -> None:
            self.events += 1
            self.types[meta.type] = self.types.get(meta.type, 0) + 1
            month = f"{{meta.timestamp:%Y-%m}}"
            self.by_month[month] = self.by_month.get(month, 0) + 1
"""

TREE = """
    from typing import Any
    from migrator import Event, Meta, Projection, on
    from msgspec import field
    from sqlalchemy.orm import Mapped, mapped_column


    class FileAdded(Event):
        mode: str
        blob: str

    class FileModified(Event):
        mode: str
        blob: str

    class FileDeleted(Event):
        commit: str

    class FileRenamed(Event):
        mode: str
        blob: str
        source: str = field(name="from")

    class Tree(Projection, topic="{topic}.one", key=lambda event: "httpcore", co_partitioned=True):
        '''One row per repository: a rename touches two paths, so the row is the whole tree.'''
        __tablename__ = "trees"
        repository: Mapped[str] = mapped_column(primary_key=True)
        files: Mapped[dict[str, Any]] = mapped_column(default=dict)

        @on(FileAdded, FileModified)
        def written(self, event: FileAdded | FileModified, meta: Meta) -> None:
            self.files[meta.key] = [event.mode, event.blob]

        @on(FileDeleted)
        def deleted(self, event: FileDeleted, meta: Meta) -> None:
            del self.files[meta.key]

        @on(FileRenamed)
        def renamed(self, event: FileRenamed, meta: Meta) -> None:
            del self.files[event.source]
            self.files[meta.key] = [event.mode, event.blob]
"""


def log(name: str) -> list[dict]:
    with gzip.open(LOGS / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def produced(tmp_path, topic, produce, make_settings):
    """`produced(name)`: the log in a topic of 4 partitions and in one of a single partition.

    All of it, or its first `count` events.
    """

    def made(name: str, count: int | None = None):
        events = log(name)
        records = [(event["key"], event) for event in events[:count]]
        many = topic(name)
        one = topic(f"{name}.one", partitions=1)
        produce(many, records)
        produce(one, records)
        places = {"time": "at"}
        settings = make_settings(tmp_path, topics={many: places, one: places})
        types = list(Counter(event["type"] for event in events))
        write(tmp_path, EVENTS.format(topic=many, types=types), "lives.py")
        return settings, many, events

    return made


@pytest.mark.parametrize("name", ["git_httpcore", "traffic_fines", "receipt"])
def test_the_folded_log_equals_its_expected_files(name, produced, db):
    settings, _, _ = produced(name)
    rebuild(settings, ["lives", "totals"])
    assert lives(db) == expected_lives(name)
    totals = json.loads((LOGS / f"{name}.expected_totals.json").read_text())
    assert db.execute("SELECT events, types, by_month FROM totals").fetchone() == (
        totals["events"],
        totals["types"],
        totals["by_month"],
    )
    assert db.execute("SELECT count(*) FROM lives").fetchone() == (totals["entities"],)


def expected_lives(name: str):
    with gzip.open(LOGS / f"{name}.expected_per_key.csv.gz", "rt", newline="") as file:
        return [as_read(row) for row in sorted(tuple(r.values()) for r in csv.DictReader(file))]


def lives(db):
    found = db.execute(
        """SELECT key, n::text, first_type, first_at, last_type, last_at, last_id
           FROM lives ORDER BY key COLLATE "C" """
    )
    return [as_written(row) for row in found]


def as_written(row):
    return tuple(value.timestamp() if hasattr(value, "timestamp") else value for value in row)


def as_read(row):
    from datetime import datetime

    key, n, first_type, first_at, last_type, last_at, last_id = row
    times = [datetime.fromisoformat(at).timestamp() for at in (first_at, last_at)]
    return key, n, first_type, times[0], last_type, times[1], last_id


def test_the_folded_tree_of_httpcore_equals_git_ls_tree(produced, db, tmp_path):
    settings, topic_name, _ = produced("git_httpcore")
    write(tmp_path, TREE.format(topic=topic_name), "trees.py")
    rebuild(settings, ["trees"])
    found = db.execute(
        """SELECT format('%s blob %s\t%s', value->>0, value->>1, key)
           FROM trees, jsonb_each(files) ORDER BY key COLLATE "C" """
    ).fetchall()
    with gzip.open(LOGS / "git_httpcore.expected_lstree.txt.gz", "rt") as lines:
        expected = sorted(lines.read().splitlines(), key=lambda line: line.partition("\t")[2])
    assert [line for (line,) in found] == expected


def test_the_sums_of_the_traffic_fines_are_exact(produced, db, tmp_path):
    settings, topic_name, events = produced("traffic_fines")
    write(
        tmp_path,
        f"""
        from decimal import Decimal
        from migrator import Event, Projection, on
        from msgspec import field
        from sqlalchemy.orm import Mapped, mapped_column

        class Created(Event, type="Create Fine"):
            amount: Decimal
            dismissal: str | int | None = None

        class Penalty(Event, type="Add penalty"):
            amount: Decimal | None = None

        class Paid(Event, type="Payment"):
            amount: Decimal | None = field(name="paymentamount", default=None)

        class Fine(Projection, topic="{topic_name}"):
            __tablename__ = "fines"
            ignores = {tuple({e["type"] for e in events} - {"Create Fine", "Add penalty", "Payment"})!r}
            fine: Mapped[str] = mapped_column(primary_key=True)
            due: Mapped[Decimal | None]
            dismissal: Mapped[str | None]
            paid: Mapped[Decimal] = mapped_column(default=Decimal(0))

            @on(Created)
            def created(self, event: Created) -> None:
                self.due = event.amount
                self.dismissal = None if event.dismissal is None else str(event.dismissal)

            @on(Penalty)
            def raised(self, event: Penalty) -> None:
                self.due = event.amount if event.amount is not None else self.due

            @on(Paid)
            def paid_(self, event: Paid) -> None:
                self.paid += event.amount or 0
        """,
        "fines.py",
    )
    rebuild(settings, ["fines"])
    due: dict[str, float] = {}
    paid: Counter = Counter()
    for event in events:
        if event["type"] in ("Create Fine", "Add penalty") and "amount" in event["data"]:
            due[event["key"]] = event["data"]["amount"]
        if event["type"] == "Payment":
            paid[event["key"]] += event["data"].get("paymentamount", 0)
    found = db.execute("SELECT fine, due, paid FROM fines").fetchall()
    assert {fine: float(value) for fine, value, _ in found} == due
    assert {fine: int(value) for fine, _, value in found if value} == {
        k: v for k, v in paid.items() if v
    }


def projected(settings, db, name: str) -> int:
    """Apply what has come to the live table, as `follow` does; returns how many events."""
    (live,) = builds.find(db, name, ["live"])
    definition = registry.load(settings.projections_dir)[name].definition
    return catch_up(db, settings, live, definition, live.target)


def test_a_rollback_after_traffic_misses_no_event_of_httpcore(produced, produce, tmp_path, db):
    half = len(log("git_httpcore")) // 2
    settings, name, events = produced("git_httpcore", half)
    rebuild(settings, ["lives"])
    file = tmp_path / "projections" / "lives.py"
    old = file.read_text()
    file.write_text(old.replace("self.n += 1", "self.n += 1000"))
    rebuild(settings, ["lives"])
    produce(name, [(event["key"], event) for event in events[half:]])
    assert projected(settings, db, "lives") == len(events) - half
    file.write_text(old)
    done = rollback.rollback(settings, rollback.plan(settings), reason="a test")
    assert done.swapped.caught_up == len(events) - half
    assert lives(db) == expected_lives("git_httpcore")
