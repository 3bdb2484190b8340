"""A snapshot of the catalogs that can be compared with another database's, or with a later one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from migrator.postgres.connect import Connection

# Who owns what, and who may use it, is often another on each server.
OF_THE_SERVER = ("owner", "grants")

Facets = dict[str, Any]


@dataclass(frozen=True)
class CatalogObject:
    """One object: `facets` say what it is like; `part_of` names the table or column it goes with."""

    kind: str
    name: str
    part_of: str | None
    facets: Facets


@dataclass(frozen=True)
class Difference:
    """One object that differs, by one facet, or as a whole where `facet` is None.

    `live` and `expected` are the facet's values; None is one that is not there.
    """

    kind: str
    name: str
    part_of: str | None
    facet: str | None
    live: Any
    expected: Any


Snapshot = dict[tuple[str, str], CatalogObject]


def read(conn: Connection, *, left_out: Iterable[str] = ()) -> Snapshot:
    """Read every object that revisions make, but for the tables `left_out` (schema.table, quoted).

    Read-only, in the caller's transaction; the search_path is as before afterwards. No secret is in
    it: what looks like one among the options of foreign objects is masked.
    """
    parameters = {"left_out": list(left_out)}
    with conn.transaction():
        before = conn.execute("SELECT current_setting('search_path')").fetchone()
        conn.execute("SELECT set_config('search_path', '', true)")
        rows = [row for name in _QUERIES for row in conn.execute(_query(name), parameters)]
        conn.execute("SELECT set_config('search_path', %s, true)", before)
    return {
        (kind, name): CatalogObject(kind, name, part, _masked(kind, said))
        for kind, name, part, said in rows
    }


_QUERIES = ("catalog_snapshot", "catalog_snapshot_rest")
_SECRET_NAME = re.compile(r"pass|secret|token|key|cred|auth|conn", re.IGNORECASE)
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")


def _query(name: str) -> bytes:
    return files("migrator.postgres").joinpath(f"sql/{name}.sql").read_bytes()


def _masked(kind: str, facets: Facets) -> Facets:
    if not kind.startswith("foreign ") or "options" not in facets:
        return facets
    return {**facets, "options": [_masked_option(option) for option in facets["options"]]}


def _masked_option(option: str) -> str:
    name, _, value = option.partition("=")
    if _SECRET_NAME.search(name):
        return f"{name}=***"
    return f"{name}={_SECRET_IN_URL.sub('***', value)}"


def differences(
    live: Snapshot, expected: Snapshot, *, ignoring: Sequence[str] = OF_THE_SERVER
) -> list[Difference]:
    """Compare two snapshots, facet by facet, in the order of kind and name. Pure.

    Parts of a table or column that is itself missing are not named apart.
    """
    there = {name for _, name in live} & {name for _, name in expected}
    found: list[Difference] = []
    for key in sorted(live.keys() | expected.keys()):
        one, other = live.get(key), expected.get(key)
        known = one or other
        assert known is not None
        if one is not None and other is not None:
            found += _facets(one, other, ignoring)
        elif known.part_of is None or known.part_of in there:
            found.append(_whole(known, one, other))
    return found


def _facets(one: CatalogObject, other: CatalogObject, ignoring: Sequence[str]) -> list[Difference]:
    names = sorted((one.facets.keys() | other.facets.keys()).difference(ignoring))
    return [
        Difference(
            one.kind, one.name, one.part_of, name, one.facets.get(name), other.facets.get(name)
        )
        for name in names
        if one.facets.get(name) != other.facets.get(name)
    ]


def _whole(
    known: CatalogObject, live: CatalogObject | None, expected: CatalogObject | None
) -> Difference:
    return Difference(
        known.kind,
        known.name,
        known.part_of,
        None,
        live.facets if live else None,
        expected.facets if expected else None,
    )
