"""What stands in a database, as far as locks and rewrites can concern it: relations by their oid."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class Relation:
    """A table, index or the like. `filenode` changes when its file is written anew.

    `name` is schema.name, quoted where SQL needs it; `table` is the oid of an index's table, else its
    own.
    """

    oid: int
    name: str
    kind: str
    table: int
    filenode: int | None
    bytes: int
    is_valid: bool


Relations = Mapping[int, Relation]

# Readers wait for an index's locks as well: whoever plans a query on the table looks at all of them.
_KINDS = {
    "r": "table",
    "p": "table",
    "f": "foreign table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
    "i": "index",
    "I": "index",
}

_QUERY = """
SELECT c.oid::bigint AS oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       c.relkind::text AS kind, coalesce(i.indrelid, c.oid)::bigint AS table,
       pg_relation_filenode(c.oid)::bigint AS filenode, coalesce(pg_table_size(c.oid), 0) AS bytes,
       coalesce(i.indisvalid, true) AS is_valid
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE n.nspname NOT IN ('migrator', 'information_schema') AND n.nspname !~ '^pg_'
  AND c.relkind = ANY (%(kinds)s)
"""


def read(conn: Connection, *, left_out: Collection[str] = ()) -> dict[int, Relation]:
    """Every relation but those of the system and of migrator itself; read-only.

    The tables `left_out`, with their indexes, are schema.table, quoted.
    """
    found = {
        oid: Relation(oid, name, _KINDS[kind], table, filenode, size, is_valid)
        for oid, name, kind, table, filenode, size, is_valid in conn.execute(
            _QUERY.encode(), {"kinds": list(_KINDS)}
        )
    }
    gone = {oid for oid, each in found.items() if each.name in left_out}
    return {oid: each for oid, each in found.items() if each.table not in gone}


def rewritten(before: Relations, after: Relations) -> list[Relation]:
    """The tables of before that have another file after; pure. TRUNCATE makes a new one, too."""
    return [
        relation
        for oid, relation in before.items()
        if relation.kind in ("table", "materialized view")
        and oid in after
        and after[oid].filenode != relation.filenode
    ]


def turned_invalid(before: Relations, after: Relations) -> list[Relation]:
    """The indexes that are invalid after and were not before; pure."""
    return [
        relation
        for oid, relation in after.items()
        if not relation.is_valid and (oid not in before or before[oid].is_valid)
    ]
