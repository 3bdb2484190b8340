"""Which columns of a live table and of a shadow are compared, and how: by name, by map, by cast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import sql

from migrator.postgres.connect import Connection


class NotCompared(Exception):
    """Two tables cannot be compared; the text says why, for a person."""


@dataclass(frozen=True)
class Column:
    """A column of a table. `type` is a domain's base, without a length, as SQL may write it."""

    name: str
    is_key: bool
    type: str
    oid: int
    element: int
    is_string: bool


@dataclass(frozen=True)
class Pair:
    """A column of both tables: `cast` is the type that both are compared as."""

    live: str
    shadow: str
    cast: str
    is_key: bool
    was: str
    now: str

    @property
    def name(self) -> str:
        """What it is called in a report: the shadow's name."""
        return self.shadow


@dataclass(frozen=True)
class Columns:
    """What is compared of two tables, and what is not.

    `not_compared` says why, by the column's name in the shadow. The key's columns stand first.
    """

    pairs: tuple[Pair, ...]
    only_live: tuple[str, ...]
    only_shadow: tuple[str, ...]
    not_compared: dict[str, str]

    @property
    def keys(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if pair.is_key)

    @property
    def values(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if not pair.is_key)


def paired(
    conn: Connection, live: sql.Identifier, shadow: sql.Identifier, renamed: Mapping[str, str]
) -> Columns:
    """Pair the columns of two tables; `renamed` maps a live column's name to the shadow's.

    Read-only, in the caller's transaction.

    Raises:
        NotCompared: one of the tables is gone, or their keys are not of the same columns.
    """
    ours, theirs = columns_of(conn, shadow), columns_of(conn, live)
    old_names = {new: old for old, new in renamed.items() if old in theirs and new in ours}
    found: list[Pair] = []
    not_compared: dict[str, str] = {}
    only_shadow = []
    for name, column in ours.items():
        old = theirs.get(old_names.get(name, name))
        if old is None or (name not in old_names and old.name in old_names.values()):
            only_shadow.append(name)
            continue
        cast = _common_type(conn, old, column)
        if cast is None:
            not_compared[name] = f"PostgreSQL has no cast between {old.type} and {column.type}"
            continue
        found.append(Pair(old.name, name, cast, column.is_key, old.type, column.type))
    keys = {pair.live for pair in found if pair.is_key}
    _refuse_other_keys(ours, theirs, keys, [*only_shadow, *not_compared])
    _fall_back_to_text(conn, found)
    used = {pair.live for pair in found} | {old_names.get(n, n) for n in not_compared}
    return Columns(
        tuple(sorted(found, key=lambda pair: not pair.is_key)),
        tuple(name for name in theirs if name not in used),
        tuple(only_shadow),
        not_compared,
    )


def columns_of(conn: Connection, table: sql.Identifier) -> dict[str, Column]:
    """A table's columns by name, in their order; read-only. Empty where there is no such table."""
    query = files("migrator.postgres").joinpath("sql/diff_columns.sql").read_bytes()
    rows = conn.execute(query, {"table": table.as_string(conn)}).fetchall()
    return {row[0]: Column(*row) for row in rows}


def _refuse_other_keys(
    ours: Mapping[str, Column],
    theirs: Mapping[str, Column],
    paired_keys: set[str],
    unpaired: Iterable[str],
) -> None:
    was = [name for name, column in theirs.items() if column.is_key]
    now = [name for name, column in ours.items() if column.is_key]
    if not ours or not theirs:
        raise NotCompared(f"the {'live' if not theirs else 'new'} table is gone")
    if not was:
        raise NotCompared("the live table has no primary key")
    if set(was) != paired_keys or set(now) & set(unpaired):
        raise NotCompared(
            f"the live table's key is ({', '.join(was)}) and the new one's is ({', '.join(now)}); "
            "--map OLD=NEW says which column is which"
        )


def _common_type(conn: Connection, old: Column, new: Column) -> str | None:
    """The type as which both can be compared, the one that loses least; None where there is none."""
    if old.oid == new.oid:
        return new.type
    if old.is_string or new.is_string:
        return "text"
    there, back = _casts(conn, old, new), _casts(conn, new, old)
    if there == "i" or (there and back != "i"):
        return new.type
    return old.type if back else None


def _casts(conn: Connection, source: Column, target: Column) -> str | None:
    """When PostgreSQL casts so: (i)mplicitly, in an (a)ssignment, (e)xplicitly; None for never."""
    if bool(source.element) != bool(target.element):
        return None
    row = conn.execute(
        "SELECT castcontext::text FROM pg_cast WHERE castsource = %s AND casttarget = %s",
        (source.element or source.oid, target.element or target.oid),
    ).fetchone()
    return row[0] if row else None


def _fall_back_to_text(conn: Connection, pairs: list[Pair]) -> None:
    """Compare as text what PostgreSQL can neither hash nor compare, such as json."""
    types = sorted({pair.cast for pair in pairs})
    if _all_hashed(conn, types):
        return
    unfit = {each for each in types if not _all_hashed(conn, [each])}
    for number, pair in enumerate(pairs):
        if pair.cast in unfit:
            pairs[number] = Pair(**{**vars(pair), "cast": "text"})


def _all_hashed(conn: Connection, types: Sequence[str]) -> bool:
    nulls = sql.SQL(", ").join(sql.SQL("NULL::" + each) for each in types)
    query = sql.SQL(
        "SELECT hash_record_extended(ROW({0}), 0), ROW({0}) IS DISTINCT FROM ROW({0})"
    ).format(nulls)
    try:
        with conn.transaction():
            conn.execute(query)
    except psycopg.errors.UndefinedFunction:
        return False
    return True
