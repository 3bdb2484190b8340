"""Event logs and definitions of projections, drawn by hypothesis.

A log is one of every partition of one topic or two. A definition has columns of many types, handlers of
a small grammar, and a key of one kind or another; or its columns are reducers.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Meta, Projection, Tombstone, count, latest, maximum, minimum, on, total
from migrator.kafka.topics import PartitionRange, TopicRange

TOPICS = ("first", "other")


class Fields(Event, type="never"):
    n: int
    s: str
    d: Decimal
    f: float
    at: datetime
    owner: str


class Put(Fields):
    pass


class Named(Fields):
    pass


class Closed(Fields):
    pass


class Seen(Fields):
    """Ignored by some."""


EVENTS: dict[str, type[Fields]] = {each.__name__: each for each in (Put, Named, Closed, Seen)}


class Mood(enum.Enum):
    good = 1
    bad = 2


@dataclass(frozen=True)
class Record:
    """One record, as much of confluent_kafka's Message as the engine asks for."""

    place: tuple[str, int, int]
    stamp: int
    raw_key: str
    event: Fields | None
    fate: str

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.place[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, self.stamp

    def key(self) -> bytes:
        return self.raw_key.encode()

    def headers(self) -> None:
        return None

    def value(self) -> bytes | None:
        if self.event is None:
            return None
        data = {name: getattr(self.event, name) for name in self.event.__struct_fields__}
        data |= {"d": str(self.event.d), "at": self.event.at.isoformat()}
        return json.dumps({"type": type(self.event).__name__, "id": 7, "data": data}).encode()

    @property
    def meta(self) -> Meta:
        return Meta(
            topic=self.place[0],
            partition=self.place[1],
            offset=self.place[2],
            timestamp=datetime.fromtimestamp(self.stamp / 1000, UTC),
            type="Tombstone" if self.event is None else type(self.event).__name__,
            key=self.raw_key,
            id=None if self.event is None else "7",
        )


TEXTS = ["", "null", 'a"b', "\\", "x\n\ty", "ü€", "{1,2}", "NULL", "A", "a"]
OWNERS = "1234"
FATES = ["go on", "go on", "go on", "batch", "spill", "kill", "spill and kill"]

fields = st.fixed_dictionaries(
    {
        "n": st.integers(-9, 9) | st.integers(-(2**40), 2**40),
        "s": st.sampled_from(TEXTS),
        "d": st.sampled_from(["0", "0.10", "-3", "1E+3", "123456789012.123456789", "0.1"]).map(
            Decimal
        ),
        "f": st.sampled_from([0.0, -1.5, 1e300, 0.1, 3.0]),
        "at": st.builds(
            lambda hours, zone: datetime(2026, 1, 1, hours, tzinfo=timezone(timedelta(hours=zone))),
            st.integers(0, 3),
            st.integers(-2, 2),
        ),
    }
)


@dataclass(frozen=True)
class Log:
    """The records of every topic, in the order in which they were produced."""

    partitions: int
    topics: tuple[str, ...]
    records: tuple[Record, ...]

    def of(self, topic: str, partition: int) -> list[Record]:
        return [each for each in self.records if each.place[:2] == (topic, partition)]

    def ranges(self) -> list[TopicRange]:
        return [
            TopicRange(
                topic,
                str(UUID(int=number)),
                tuple(PartitionRange(n, 0, len(self.of(topic, n))) for n in range(self.partitions)),
            )
            for number, topic in enumerate(self.topics)
        ]

    def merged(self, partition: int) -> Iterator[Record]:
        """A partition's records as the docs say: by timestamp, then topic, then offset."""
        streams = [self.of(topic, partition) for topic in self.topics]
        while any(streams):
            first = min((s for s in streams if s), key=lambda s: s[0].stamp)
            yield first.pop(0)


KEYS: dict[str, Callable[[str], str]] = {
    "str": lambda digits: f'k\t"{digits}\\é',
    "int": str,
    "uuid": lambda digits: str(UUID(int=int(digits))),
}
PYTHON: dict[str, Any] = {"str": str, "int": int, "uuid": UUID}


@st.composite
def logs(draw: Any, key: str, *, most: int) -> Log:
    """Logs in which an owner has keys of its own and lies in one partition of every topic."""
    partitions = draw(st.integers(1, 3))
    topics = TOPICS[: draw(st.integers(1, 2))]
    reached: dict[tuple[str, int], int] = {}
    records = []
    for number in range(draw(st.integers(0, most))):
        owner = draw(st.sampled_from(OWNERS))
        topic = draw(st.sampled_from(topics))
        kind = draw(st.sampled_from([*EVENTS, "Put", "Put", "Named", None]))
        place = topic, int(owner) % partitions
        reached[place] = reached.get(place, -1) + 1
        records.append(
            Record(
                place=(*place, reached[place]),
                # Mostly forward, and sometimes back.
                stamp=number + draw(st.sampled_from([0, 0, -5, 5])) + 10,
                raw_key=KEYS[key](owner + draw(st.sampled_from("01"))),
                event=None if kind is None else EVENTS[kind](owner=owner, **draw(fields)),
                fate=draw(st.sampled_from(FATES)),
            )
        )
    return Log(partitions, topics, tuple(records))


def _set(name: str) -> Callable[[Any, str, Any], None]:
    return lambda row, column, event: setattr(row, column, getattr(event, name))


def _made(make: Callable[[Any, Any], Any]) -> Callable[[Any, str, Any], None]:
    return lambda row, column, event: setattr(row, column, make(getattr(row, column), event))


# Each kind of column: its type, the column, and what a handler may do to it.
COLUMNS: dict[str, tuple[Any, Callable[[], Any], list[Callable[[Any, str, Any], None]]]] = {
    "whole": (
        int,
        lambda: mapped_column(BigInteger, default=0),
        [_set("n"), _made(lambda was, e: was + e.n), _made(lambda was, _e: was + 1)],
    ),
    "text": (
        str | None,
        mapped_column,
        [_set("s"), _made(lambda was, e: (was or "")[-20:] + e.s), _made(lambda _w, _e: None)],
    ),
    "exact": (
        Decimal,
        lambda: mapped_column(default=Decimal("0.10")),
        [_set("d"), _made(lambda was, e: min(was, e.d))],
    ),
    "real": (
        float | None,
        mapped_column,
        [_set("f"), _made(lambda was, e: (was or 0.0) / 2 + e.f)],
    ),
    "moment": (
        datetime | None,
        mapped_column,
        [_set("at"), _made(lambda was, e: e.at if was is None or e.at > was else was)],
    ),
    "day": (date | None, mapped_column, [_made(lambda _was, e: e.at.astimezone(UTC).date())]),
    "flag": (bool, lambda: mapped_column(default=False), [_made(lambda was, e: was != (e.n > 0))]),
    "blob": (bytes | None, mapped_column, [_made(lambda was, e: (was or b"")[-9:] + e.s.encode())]),
    "id": (UUID | None, mapped_column, [_made(lambda _was, e: UUID(int=abs(e.n)))]),
    "numbers": (
        list[int],
        lambda: mapped_column(default=list),
        [_made(lambda was, e: [*was, e.n]), lambda row, c, e: getattr(row, c).append(e.n)],
    ),
    "texts": (
        list[str],
        lambda: mapped_column(default=list),
        [_made(lambda was, e: [*was[-3:], e.s])],
    ),
    "document": (
        dict[str, Any],
        lambda: mapped_column(default=dict),
        [
            _made(lambda was, e: {**was, e.s: was.get(e.s, 0) + 1}),
            _made(lambda _w, e: {"n": [e.n]}),
        ],
    ),
    "mood": (
        Mood,
        lambda: mapped_column(default=Mood.good),
        [_made(lambda was, _e: Mood.bad if was is Mood.good else Mood.good)],
    ),
}

GUARDS: dict[str, Callable[[Any, Any], bool]] = {
    "always": lambda _row, _event: True,
    "positive": lambda _row, event: event.n > 0,
    "seen": lambda row, _event: row.seen > 1,
}


def _handler(steps: list[tuple[str, str, int]], *, takes_meta: bool) -> Callable[..., None]:
    def fold(row: Any, event: Any) -> None:
        row.seen += 1
        for guard, column, number in steps:
            if not GUARDS[guard](row, event):
                continue
            if column == "delete":
                row.delete()
            else:
                COLUMNS[column][2][number](row, column, event)

    def fold_with_meta(self: Any, event: Any, meta: Meta) -> None:
        self.last = (
            f"{meta.topic} {meta.partition} {meta.offset} {meta.timestamp} {meta.key} {meta.id}"
        )
        fold(self, event)

    return fold_with_meta if takes_meta else fold


@st.composite
def folding(draw: Any, key: str, topics: tuple[str, ...], name: str) -> type[Projection]:
    """A projection that folds by handlers."""
    columns = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=4, unique=True))
    choices = [(c, n) for c in columns for n in range(len(COLUMNS[c][2]))] + [("delete", 0)]
    steps = st.lists(
        st.tuples(st.sampled_from(sorted(GUARDS)), st.sampled_from(choices)).map(
            lambda drawn: (drawn[0], *drawn[1])
        ),
        max_size=4,
    )
    members: dict[str, Any] = {
        "ignores": ["Seen"] if draw(st.booleans()) else [],
        "seen": mapped_column(default=0),
        "last": mapped_column(),
        **{column: COLUMNS[column][1]() for column in columns},
    }
    told: dict[str, Any] = {}
    for event in EVENTS.values():
        if event.__name__ not in members["ignores"]:
            taken = draw(steps)
            told[event.__name__] = taken
            handler = _handler(taken, takes_meta=draw(st.booleans()))
            members[f"on_{event.__name__.lower()}"] = on(event)(handler)
    types: dict[str, Any] = {"seen": int, "last": str | None, **{c: COLUMNS[c][0] for c in columns}}
    keyed = draw(st.sampled_from(["record", "record", "owner", "owner and n"]))
    options: dict[str, Any] = {"topic": topics}
    if keyed == "record":
        types["key"] = PYTHON[key]
        members["key"] = mapped_column(primary_key=True)
        buried = draw(st.sampled_from(["deleted", "handled", "ignored"]))
        if buried == "handled":
            members["buried"] = on(Tombstone)(_bury)
        elif buried == "ignored":
            members["ignores"].append(Tombstone)
    else:
        types["key"] = str
        members["key"] = mapped_column(primary_key=True)
        members["ignores"].append("Tombstone")
        options |= {"co_partitioned": True, "key": lambda event: event.owner}
        if keyed == "owner and n":
            types["part"] = int
            members["part"] = mapped_column(primary_key=True, autoincrement=False)
            options["key"] = lambda event: (event.owner, event.n % 3)
    options["told"] = f"{keyed} key; {members['ignores']} ignored; {told}"
    return _class(name, types, members, options)


def _bury(self: Any, _event: None) -> None:
    self.last = "buried"


Events = list[tuple[Any, Meta]]


@dataclass(frozen=True)
class Reduced:
    """A reducer, and the same said naively, of all events of its types at once."""

    python: Any
    column: Callable[[], Any]
    events: tuple[type, ...]
    naive: Callable[[Events], Any]


def _values(seen: Events, of: Callable[[Any], Any]) -> list[Any]:
    return [of(event) for event, _ in seen]


def _last(seen: Events, by: Callable[[Any, Meta], Any], of: Callable[[Any], Any]) -> Any:
    if not seen:
        return None
    event, _ = max(seen, key=lambda e: (by(*e), e[1].topic, e[1].partition, e[1].offset))
    return of(event)


REDUCED: dict[str, Reduced] = {
    "sum": Reduced(
        int,
        lambda: total(Put, lambda e: e.n, type_=BigInteger),
        (Put,),
        lambda seen: sum(_values(seen, lambda e: e.n)),
    ),
    "balance": Reduced(
        Decimal,
        lambda: total({Put: lambda e: e.d, Named: lambda e: -e.d}),
        (Put, Named),
        lambda seen: sum(
            (Decimal(0), *(e.d if isinstance(e, Put) else -e.d for e, _ in seen)), Decimal(0)
        ),
    ),
    "events": Reduced(int, lambda: count(Put, Closed, index=True), (Put, Closed), len),
    "some": Reduced(
        int,
        lambda: count(Named, where=lambda e: e.n > 0),
        (Named,),
        lambda seen: sum(e.n > 0 for e, _ in seen),
    ),
    "least": Reduced(
        int | None,
        lambda: minimum(Put, lambda e: e.n, type_=BigInteger),
        (Put,),
        lambda seen: min(_values(seen, lambda e: e.n), default=None),
    ),
    "greatest": Reduced(
        Decimal | None,
        lambda: maximum(Put, lambda e: e.d),
        (Put,),
        lambda seen: max(_values(seen, lambda e: e.d), default=None),
    ),
    "first_text": Reduced(
        str | None,
        lambda: minimum(Named, lambda e: e.s),
        (Named,),
        lambda seen: min(_values(seen, lambda e: e.s), default=None),
    ),
    "real": Reduced(
        float | None,
        lambda: minimum(Put, lambda e: e.f),
        (Put,),
        lambda seen: min(_values(seen, lambda e: e.f), default=None),
    ),
    "until": Reduced(
        datetime | None,
        lambda: maximum(Put, lambda e: e.at),
        (Put,),
        lambda seen: max(_values(seen, lambda e: e.at), default=None),
    ),
    "text": Reduced(
        str | None,
        lambda: latest(Put, lambda e: e.s, by=lambda e: e.n),
        (Put,),
        lambda seen: _last(seen, lambda e, _m: e.n, lambda e: e.s),
    ),
    "numbers": Reduced(
        list[int] | None,
        lambda: latest(Named, lambda e: [e.n] * (abs(e.n) % 3), by=lambda e: e.at),
        (Named,),
        lambda seen: _last(seen, lambda e, _m: e.at, lambda e: [e.n] * (abs(e.n) % 3)),
    ),
    "document": Reduced(
        dict[str, Any] | None,
        lambda: latest(Put, lambda e: {e.s: e.n}, by=lambda e: e.d, where=lambda e: e.n % 2),
        (Put,),
        lambda seen: _last(
            [each for each in seen if each[0].n % 2], lambda e, _m: e.d, lambda e: {e.s: e.n}
        ),
    ),
    "mood": Reduced(
        Mood | None,
        lambda: latest(Put, lambda e: Mood(1 + e.n % 2), by=lambda _e, meta: meta.timestamp),
        (Put,),
        lambda seen: _last(seen, lambda _e, m: m.timestamp, lambda e: Mood(1 + e.n % 2)),
    ),
}


@st.composite
def reducing(draw: Any, topics: tuple[str, ...], name: str) -> type[Projection]:
    """A projection whose columns are reducers, by a key that spreads over partitions."""
    columns = draw(st.lists(st.sampled_from(sorted(REDUCED)), min_size=1, max_size=5, unique=True))
    taken = {event.__name__ for column in columns for event in REDUCED[column].events}
    return _class(
        name,
        {"key": str, **{column: REDUCED[column].python for column in columns}},
        {
            "ignores": [*(EVENTS.keys() - taken), "Tombstone"],
            "key": mapped_column(primary_key=True),
            **{column: REDUCED[column].column() for column in columns},
        },
        {"topic": topics, "key": lambda event: event.s},
    )


def _class(
    name: str, types: dict[str, Any], members: dict[str, Any], options: dict[str, Any]
) -> type[Projection]:
    members["__annotations__"] = {column: Mapped[python] for column, python in types.items()}
    told = options.pop("told", "")
    made = type("Drawn", (Projection,), {"__tablename__": name, **members}, **options)
    made.TOLD = f"{name}: {', '.join(types)}; {told}"  # type: ignore[attr-defined]
    return made


def described(projection: type[Projection]) -> str:
    """What was drawn, for whoever reads a failure."""
    return str(projection.TOLD)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """A log and the projections of one pass over it."""

    log: Log
    projections: list[type[Projection]]
    workers: int

    def without_fates(self) -> Case:
        records = tuple(replace(each, fate="go on") for each in self.log.records)
        return replace(self, log=replace(self.log, records=records))


@st.composite
def cases(draw: Any, *, most: int = 25) -> Case:
    key = draw(st.sampled_from(sorted(KEYS)))
    log = draw(logs(key, most=most))
    drawn = st.sampled_from([folding, folding, reducing])
    projections = [
        draw(
            kind(log.topics, f"drawn_{number}")
            if kind is reducing
            else kind(key, log.topics, f"drawn_{number}")
        )
        for number, kind in enumerate(draw(st.lists(drawn, min_size=1, max_size=2)))
    ]
    return Case(log, projections, draw(st.integers(1, 3)))
