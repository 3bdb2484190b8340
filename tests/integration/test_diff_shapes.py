"""The diff where the table's shape is anything: types, names, keys, and live's another than the new one's."""

from __future__ import annotations

import pytest
from psycopg import sql

from migrator.projections import build as builds
from migrator.projections.diff_columns import NotCompared
from migrator.projections.rebuild import rebuild
from migrator.projections.registry import load
from tests.integration.test_diff import SHADOW, both_ways, found
from tests.projects import placed, write

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def tables(project, produce, db):
    """`tables(live, shadow)`: give the two tables of orders, of ten keys, these columns by name."""
    produce(project.topic, [placed(n, n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    rebuild(project.settings, ["orders"], SHADOW)
    registered = load(project.settings.projections_dir)["orders"]
    (build,) = builds.find(db, "orders", ["verified"])

    def made(live, shadow):
        for table, columns in (("public.orders", live), (f"{build.schema}.orders", shadow)):
            for name in ("customer_id", "status", "total_cents", "carrier"):
                db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
            for name, (kind, value) in columns.items():
                db.execute(
                    sql.SQL("ALTER TABLE {} ADD COLUMN {} {} DEFAULT {}").format(
                        sql.SQL(table), sql.Identifier(name), sql.SQL(kind), sql.SQL(value)
                    )
                )

        def compare(renamed=None):
            return both_ways(project.settings, db, build, registered.definition, renamed)

        return compare

    return made


OTHERS = {
    "number": ("numeric", "1.0", "1.1"),
    "price": ("numeric(12, 2)", "9.99", "9.98"),
    "ratio": ("double precision", "'NaN'", "'Infinity'"),
    "seen": ("timestamptz", "'2026-01-01 12:00+01'", "'2026-01-01 12:00+02'"),
    "day": ("date", "'2026-01-01'", "'2026-01-02'"),
    "document": ("json", "'{\"a\": 1}'", "'{\"a\": 2}'"),
    "facts": ("jsonb", "'{\"a\": 1}'", "'{\"a\": 2}'"),
    "tags": ("text[]", "'{a,NULL}'", "'{a}'"),
    "documents": ("json[]", "ARRAY['1'::json]", "ARRAY['2'::json]"),
    "points": ("int[]", "'{1,2}'", "'{2,1}'"),
    "mood": ("mood", "'fine'", "'awful'"),
    "raw": ("bytea", "'\\x00ff'", "'\\x00fe'"),
    "id": (
        "uuid",
        "'00000000-0000-0000-0000-000000000001'",
        "'00000000-0000-0000-0000-000000000002'",
    ),
    "flags": ("bit(3)", "B'101'", "B'100'"),
    "short": ("char(5)", "'ab'", "'abc'"),
    "ok": ("boolean", "true", "NULL"),
    "place": ("point", "'(1,2)'", "'(1,3)'"),
    "during": ("interval", "'1 day'", "'25 hours'"),
    "words": ("tsvector", "'a b'", "'a'"),
    "small": ("positive", "3", "4"),
    'o"d % {d} name': ("text", "'%s'", "'%%'"),
    "SELECT": ("text", "NULL", "''"),
}


def test_columns_of_any_type_and_name_compare(tables, db):
    db.execute(
        "CREATE TYPE mood AS ENUM ('fine', 'awful'); CREATE DOMAIN positive AS int CHECK (value > 0)"
    )
    same = {name: (kind, value) for name, (kind, value, _) in OTHERS.items()}
    compare = tables(same, same)
    assert compare().differing == 0
    for name, (_, _, other) in OTHERS.items():
        column = sql.Identifier(name)
        set_ = sql.SQL("UPDATE orders SET {} = {} WHERE order_id = 'o4'").format(
            column, sql.SQL(other)
        )
        db.execute(set_)
        seen = compare()
        assert {name: 1} == seen.changed_columns, name
        assert set(found(seen)) == {("changed", "o4")}
        db.execute(sql.SQL("UPDATE orders SET {} = DEFAULT").format(column))


def test_what_is_equal_in_another_spelling_does_not_differ(tables):
    compare = tables(
        {"n": ("numeric", "1.0"), "f": ("float8", "-0.0"), "j": ("jsonb", '\'{"b":1,"a":2}\'')},
        {"n": ("numeric", "1.00"), "f": ("float8", "0.0"), "j": ("jsonb", '\'{"a":2, "b":1}\'')},
    )
    assert compare().differing == 0


CASTS = [
    ("int", "7", "bigint", "7", "bigint"),
    ("bigint", "7", "int", "7", "bigint"),
    ("numeric", "7.0", "int", "7", "numeric"),
    ("varchar(20)", "'a'", "text", "'a'", "text"),
    ("int", "7", "text", "'7'", "text"),
    (
        "uuid",
        "'00000000-0000-0000-0000-000000000001'",
        "text",
        "'00000000-0000-0000-0000-000000000001'",
        "text",
    ),
    ("json", "'{\"a\":1}'", "jsonb", "'{\"a\": 1}'", "jsonb"),
    ("int[]", "'{1}'", "bigint[]", "'{1}'", "bigint[]"),
    ("date", "'2026-01-01'", "timestamptz", "'2026-01-01 00:00+00'", "timestamp with time zone"),
    ("positive", "7", "int", "7", None),
]


def test_columns_whose_type_has_changed_compare_through_a_cast(tables, db):
    db.execute("CREATE DOMAIN positive AS int CHECK (value > 0)")
    compare = tables(
        {f"c{n}": (was, value) for n, (was, value, *_) in enumerate(CASTS)},
        {f"c{n}": (now, value) for n, (_, _, now, value, _) in enumerate(CASTS)},
    )
    seen = compare()
    assert (seen.differing, seen.not_compared) == (0, {})
    assert seen.as_type == {f"c{n}": each[4] for n, each in enumerate(CASTS) if each[4]}


def test_columns_without_a_cast_and_of_one_side_are_named_and_the_others_compared(tables, db):
    compare = tables(
        {"a": ("boolean", "true"), "old": ("int", "1"), "b": ("text", "'x'")},
        {"a": ("timestamptz", "now()"), "new": ("int", "1"), "b": ("text", "'x'")},
    )
    seen = compare()
    assert (seen.only_live, seen.only_shadow, list(seen.not_compared)) == (
        ("old",),
        ("new",),
        ["a"],
    )
    assert "no cast between boolean and timestamp" in seen.not_compared["a"]
    assert seen.differing == 0
    db.execute("UPDATE orders SET b = 'y' WHERE order_id = 'o1'")
    assert found(compare()) == {("changed", "o1"): {"b": ("y", "x")}}


def test_a_renamed_column_is_compared_by_map(tables, db):
    compare = tables({"old name": ("int", "1")}, {"new=name": ("int", "1")})
    db.execute("""UPDATE orders SET "old name" = 2 WHERE order_id = 'o1'""")
    assert compare().differing == 0
    seen = compare({"old name": "new=name"})
    assert found(seen) == {("changed", "o1"): {"new=name": ("2", "1")}}
    assert (seen.renamed, seen.only_live, seen.only_shadow) == ({"old name": "new=name"}, (), ())


def test_a_table_of_nothing_but_its_key_compares(tables, db):
    compare = tables({}, {})
    db.execute("DELETE FROM orders WHERE order_id = 'o1'")
    assert found(compare()) == {("extra", "o1"): {}}


def test_another_key_is_not_compared(tables, db):
    compare = tables({"line": ("int", "1")}, {"line": ("int", "1")})
    db.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (order_id, line)")
    with pytest.raises(NotCompared, match=r"\(order_id, line\) and the new one's is \(order_id\)"):
        compare()


def test_a_renamed_key_is_compared_by_map(tables, db):
    compare = tables({}, {})
    db.execute("ALTER TABLE orders RENAME COLUMN order_id TO id")
    with pytest.raises(NotCompared, match="--map"):
        compare()
    assert compare({"id": "order_id"}).differing == 0


def test_the_sessions_own_settings_change_nothing(tables, db):
    columns = {
        "d": ("date", "'2026-02-01'"),
        "t": ("json", "'1'"),
        "s": ("timestamptz", "'2026-01-01+00'"),
    }
    compare = tables(columns, {**columns, "s": ("text", "'2026-01-01 00:00:00+00'")})
    db.execute("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'")
    assert compare().differing == 0
    assert db.execute("SHOW DateStyle").fetchone() == ("German, DMY",)


def test_rows_that_a_policy_hides_are_not_passed_over(tables, db, role):
    compare = tables({}, {})
    (schema,) = db.execute("SELECT max(build) FROM migrator.build").fetchone()
    db.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    db.execute(f"CREATE POLICY own ON orders TO {role} USING (order_id = 'o1')")
    db.execute(f"GRANT USAGE ON SCHEMA migrator, migrator_build_{schema} TO {role}")
    db.execute(
        f"GRANT SELECT ON orders, migrator_build_{schema}.orders, migrator.build, migrator.position TO {role}"
    )
    db.execute(f"SET ROLE {role}")
    try:
        with pytest.raises(NotCompared, match="does not see every row"):
            compare()
    finally:
        db.execute("RESET ROLE")


COMPOSITE = """
    from migrator import Event, Projection, on
    from sqlalchemy.orm import Mapped, mapped_column

    class OrderPlaced(Event):
        customer_id: str
        total_cents: int

    class Order(Projection, topic="{topic}", key=lambda e: (e.customer_id, e.total_cents), co_partitioned=True):
        __tablename__ = "orders"
        customer: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        seen: Mapped[int] = mapped_column(default=0)

        @on(OrderPlaced)
        def placed(self, event: OrderPlaced) -> None:
            self.seen += 1
"""


def test_composite_keys_of_events_are_left_out(project, produce, db):
    write(project.root, COMPOSITE.format(topic=project.topic))
    produce(project.topic, [placed(n, n) for n in range(30)], partition=1)
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(3, 3), placed(4, 4), placed(4, 4)], partition=1)
    rebuild(project.settings, ["orders"], SHADOW)
    registered = load(project.settings.projections_dir)["orders"]
    (build,) = builds.find(db, "orders", ["verified"])
    seen = both_ways(project.settings, db, build, registered.definition)
    assert (seen.left_out, seen.events_between, seen.differing, seen.keys) == (2, 3, 0, 28)
    db.execute("UPDATE orders SET seen = 7 WHERE total IN (3, 5)")
    assert found(both_ways(project.settings, db, build, registered.definition)) == {
        ("changed", "c5", "5"): {"seen": ("7", "1")}
    }
