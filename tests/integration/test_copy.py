"""COPY writes every value so that PostgreSQL reads back the same."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.dialects import postgresql

from migrator.postgres.copy import copy_rows


class Color(enum.Enum):
    red = "r"


text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"))
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=5,
)
COLUMNS: dict[str, tuple[sa.types.TypeEngine[Any], str, st.SearchStrategy[Any]]] = {
    "words": (sa.Text(), "text", text),
    "whole": (sa.BigInteger(), "bigint", st.integers(-(2**63), 2**63 - 1)),
    "exact": (
        sa.Numeric(),
        "numeric",
        st.decimals(allow_nan=False, allow_infinity=False, places=4),
    ),
    "loose": (sa.Float(), "float8", st.floats(allow_nan=False)),
    "truth": (sa.Boolean(), "boolean", st.booleans()),
    "moment": (
        sa.DateTime(timezone=True),
        "timestamptz",
        st.datetimes(datetime(1, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
    "day": (sa.Date(), "date", st.dates(date(1, 1, 1))),
    "blob": (sa.LargeBinary(), "bytea", st.binary()),
    "name": (sa.Uuid(), "uuid", st.uuids()),
    "tree": (postgresql.JSONB(), "jsonb", json.filter(lambda v: v is not None)),
    "labels": (postgresql.ARRAY(sa.Text()), "text[]", st.lists(text | st.none())),
    "numbers": (postgresql.ARRAY(sa.BigInteger()), "bigint[]", st.lists(st.integers(-9, 9))),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_any_value_comes_back_as_it_was(db, name):
    type_, declared, values = COLUMNS[name]
    db.execute(f"CREATE TABLE t (n int, v {declared})")
    columns = [("n", sa.Integer()), ("v", type_)]

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(values | st.none(), min_size=1))
    def round_trip(given_values):
        if name == "tree":
            given_values = [v for v in given_values if "\\u0000" not in repr(v)]
        db.execute("TRUNCATE t")
        rows = [SimpleNamespace(n=n, v=v) for n, v in enumerate(given_values)]
        assert copy_rows(db, sql.Identifier("t"), ["n", "v"], columns, rows) == len(rows)
        found = [v for (v,) in db.execute("SELECT v FROM t ORDER BY n").fetchall()]
        assert found == given_values

    round_trip()


def test_an_enum_is_written_by_its_name(db):
    db.execute("CREATE TABLE t (v text)")
    rows = [SimpleNamespace(v=Color.red)]
    copy_rows(db, sql.Identifier("t"), ["v"], [("v", sa.Enum(Color))], rows)
    assert db.execute("SELECT v FROM t").fetchone() == ("red",)


def test_many_rows_are_counted(db):
    db.execute("CREATE TABLE t (v int)")
    rows = (SimpleNamespace(v=n) for n in range(10_001))
    assert copy_rows(db, sql.Identifier("t"), ["v"], [("v", sa.Integer())], rows) == 10_001


def test_values_of_other_spellings_are_taken(db):
    db.execute("CREATE TABLE t (a numeric, b uuid, c timestamptz)")
    columns = [("a", sa.Numeric()), ("b", sa.Uuid()), ("c", sa.DateTime())]
    row = SimpleNamespace(a=Decimal("1.50"), b=UUID(int=1), c="2026-01-02T03:04:05Z")
    copy_rows(db, sql.Identifier("t"), ["a", "b", "c"], columns, [row])
    assert db.execute("SELECT a::text, b::text, extract(epoch FROM c)::int FROM t").fetchone() == (
        "1.50",
        "00000000-0000-0000-0000-000000000001",
        1767323045,
    )
