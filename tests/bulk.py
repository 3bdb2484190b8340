"""Fold a drawn case in bulk, as workers do: partitions apart, spilled and killed where the log says."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sqlalchemy.pool import StaticPool

from migrator.kafka.log import _merged
from migrator.postgres.connect import Connection
from migrator.projections import build as builds
from migrator.projections.apply import Applier
from migrator.projections.build import Build
from migrator.projections.partition import PartitionFold
from migrator.projections.registry import Registered
from migrator.projections.store import PartitionStore, Target
from migrator.projections.writers import Advance
from migrator.settings import Topic
from tests.drawn import Case, Record, described
from tests.one_by_one import Live

BATCH = 4


def compare(db: Connection, drawn: SearchStrategy[Case], how: settings) -> None:
    """Hold four ways of folding against each other: at once, in pieces, followed, one by one."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

    @settings(how, deadline=None, suppress_health_check=checks)
    @given(drawn, st.integers(0, 99))
    def check(case: Case, seed: int) -> None:
        for projection in case.projections:
            note(described(projection))
        clean = bulk(db, case.without_fates())
        assert bulk(db, case, seed) == clean
        assert one_by_one(db, case, seed) == clean
        assert followed(db, case, seed) == clean

    check()


def bulk(
    db: Connection, case: Case, seed: int = 0, *, made: list[Build] | None = None
) -> list[list[Any]]:
    """Rebuild all the case's projections in one pass; returns the rows of each, and what it `made`."""
    ranges = case.log.ranges()
    registered = [Registered(p.__definition__, "hash", Path("p.py")) for p in case.projections]
    made = [] if made is None else made
    made += [builds.create(db, each, "public", ranges) for each in registered]
    for build in made:
        builds.start_replay(db, build, ranges)
    turns = random.Random(seed)
    fates = {record.place: record.fate for record in case.log.records}
    workers = [_worker(db, case, made, n, fates) for n in range(case.log.partitions)]
    while workers:
        chosen = turns.choice(workers[: case.workers])
        if next(chosen, None) is None:
            workers.remove(chosen)
    rows = []
    for each, build in zip(registered, made, strict=True):
        assert builds.parts_left(db, build, case.log.topics) == []
        builds.load(db, build, each)
        loaded = builds.find(db, build.projection, ["loaded"])[0]
        rows.append(rows_of(db, build.schema, build.table_name))
        assert loaded.rows == len(rows[-1])
        assert sum(p.events for p in builds.positions(db, build.build)) == len(case.log.records)
    return rows


def followed(db: Connection, case: Case, seed: int) -> list[list[Any]]:
    """Rebuild from the beginning of every partition, then apply the rest in batches of any size."""
    turns = random.Random(seed)
    first: set[Any] = set()
    rest: list[list[Record]] = []
    for number in range(case.log.partitions):
        merged = list(case.log.merged(number))
        cut = turns.randint(0, len(merged))
        first |= {record.place for record in merged[:cut]}
        rest.append(merged[cut:])
    log = replace(case.log, records=tuple(r for r in case.log.records if r.place in first))
    made: list[Build] = []
    bulk(db, replace(case, log=log).without_fates(), made=made)
    appliers = [
        Applier(db, dict.fromkeys(case.log.topics, Topic()), build, p.__definition__, build.table)
        for build, p in zip(made, case.projections, strict=True)
    ]
    while any(rest):
        batch: list[Record] = []
        for records in turns.sample(rest, turns.randint(1, len(rest))):
            size = turns.randint(0, 5)
            batch += records[:size]
            del records[:size]
        for applier, build in zip(appliers, made, strict=True):
            with suppress(_Killed), db.transaction():
                _apply(db, applier, build, batch)
                if turns.random() < 0.2:
                    raise _Killed
                continue
            with db.transaction():
                _apply(db, applier, build, batch)
    for build in made:
        assert sum(p.events for p in builds.positions(db, build.build)) == len(case.log.records)
    return [rows_of(db, build.schema, build.table_name) for build in made]


class _Killed(Exception):
    pass


def _apply(db: Connection, applier: Applier, build: Build, batch: list[Record]) -> None:
    moves: dict[Any, list[Record]] = {}
    for record in batch:
        moves.setdefault(record.place[:2], []).append(record)
    applier.apply(
        batch,
        [Advance(*place, r[0].offset(), r[-1].offset() + 1, len(r)) for place, r in moves.items()],
    )


def _worker(
    db: Connection, case: Case, made: Sequence[Build], number: int, fates: dict[Any, str]
) -> Iterator[str]:
    """The lives of whoever reads one partition, one after the other."""
    while True:
        lefts = {
            tuple(part)
            for build in made
            for part in builds.parts_left(db, build, case.log.topics)
            if part[0].partition == number
        }
        if not lefts:
            return
        (part,) = lefts
        definitions = [p.__definition__ for p in case.projections]
        fold = PartitionFold(dict.fromkeys(case.log.topics, Topic()), definitions)
        targets = [Target(b.build, b.schema, b.projection, "hash") for b in made]
        store = PartitionStore(db, case.log.topics, part, targets, fold)
        streams = [
            iter([case.log.of(topic, number)[each.start :]])
            for topic, each in zip(case.log.topics, part, strict=True)
        ]
        records = [record for batch in _merged(streams) for record in batch]
        for batch, fate in _batches(records, fates):
            fold.apply(batch)
            if "spill" in fate:
                store.spill()
            yield fate
            if "kill" in fate:
                break
        else:
            store.finish()


def _batches(
    records: Sequence[Record], fates: dict[Any, str]
) -> Iterator[tuple[list[Record], str]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        fate = fates[record.place]
        if fate != "go on" or len(batch) == BATCH:
            fates[record.place] = "go on"  # each comes once
            yield batch, fate
            batch = []
    if batch:
        yield batch, "go on"


def one_by_one(db: Connection, case: Case, seed: int = 0) -> list[list[Any]]:
    """Keep the case's projections event by event, partitions in any order; returns their rows."""
    turns = random.Random(seed)
    partitions = [list(case.log.merged(number)) for number in range(case.log.partitions)]
    order = []
    while any(partitions):
        order.append(turns.choice([p for p in partitions if p]).pop(0))
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(db.info.dsn), poolclass=StaticPool
    )
    rows = []
    with engine.connect() as conn:
        for projection in case.projections:
            live = Live(conn, projection.__definition__, f"live_{uuid.uuid4().hex[:12]}")
            if projection.__definition__.reduced:
                live.reduce(order)
            else:
                for record in order:
                    live.fold(record)
            conn.commit()
            rows.append(rows_of(db, live.table.schema or "", live.table.name))
    engine.dispose()
    return rows


def rows_of(db: Connection, schema: str, table: str) -> list[Any]:
    return db.execute(f'SELECT * FROM {schema}."{table}" t ORDER BY t::text').fetchall()
