from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from migrator.postgres.together import Ask, together


def fetched(cursor):
    return cursor.fetchone()


def test_each_statement_is_answered_in_its_order(db):
    asked = [
        Ask(b"SELECT '100%'", read=fetched),
        Ask(b"SELECT %(a)s || '%%', %(b)s::text[]", {"a": "it's", "b": ["x", "y"]}, fetched),
        Ask(sql.SQL("SELECT {}").format(sql.Literal("a;b")), read=fetched),
        Ask(b"SET search_path = x"),
    ]
    assert together(db, *asked) == [("100%",), ("it's%", ["x", "y"]), ("a;b",), None]


def test_the_first_that_fails_stops_the_rest(db, database_url):
    db.execute("CREATE TABLE t (a int)")
    with psycopg.connect(database_url) as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            together(
                conn, Ask(b"INSERT INTO t VALUES (1)"), Ask(b"SELECT 1/0"), Ask(b"SELECT nothing")
            )
        conn.rollback()
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_an_idle_transaction_keeps_no_snapshot_after_it(db, database_url):
    """CREATE INDEX CONCURRENTLY in another session would wait for it (docs/adr/0006)."""
    with psycopg.connect(database_url) as conn:
        together(conn, Ask(b"SELECT %(a)s", {"a": 1}))
        found = db.execute(
            "SELECT state, backend_xmin FROM pg_stat_activity WHERE pid = %s",
            (conn.info.backend_pid,),
        ).fetchone()
        assert found == ("idle in transaction", None)
