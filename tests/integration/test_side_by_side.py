"""Blue and green at once: a client reads the verified build by its search_path before it is live."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import conninfo

from migrator.projections.cut_over import cut_over
from migrator.projections.rebuild import Options, rebuild
from tests.projects import edit, placed

QUERY = "SELECT DISTINCT status FROM orders"
STOPPED = Options(cut_over=False)


@pytest.fixture
def verified(project, produce, db, role):
    """Build 1 is live, and the role may read it; build 2 says "new" of what 1 says "placed" of."""
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    db.execute(f"GRANT SELECT ON orders TO {role}")
    edit(project, '"placed"', '"new"')
    return project


def client(database_url: str, role: str, search_path: str) -> psycopg.Connection:
    url = conninfo.make_conninfo(database_url, user=role, options=f"-c search_path={search_path}")
    return psycopg.connect(url, autocommit=True)


def test_green_reads_the_new_build_and_blue_the_live_one_until_the_cut_over(
    verified, cli, database_url, role
):
    said = cli("rebuild-projections", "--projection", "orders", "--no-cut-over").stdout
    assert "read beside the live one with search_path = migrator_build_2, public" in said
    with (
        client(database_url, role, "public") as blue,
        client(database_url, role, "migrator_build_2,public") as green,
    ):
        assert blue.execute(QUERY).fetchall() == [("placed",)]
        assert green.execute(QUERY).fetchall() == [("new",)]
        cut_over(verified.settings, [2])
        assert blue.execute(QUERY).fetchall() == [("new",)]
        assert green.execute(QUERY).fetchall() == [("new",)]
        assert cli("rollback", "--instant", "--reason", "r", "--yes").exit_code == 0
        assert blue.execute(QUERY).fetchall() == [("placed",)]
        assert green.execute(QUERY).fetchall() == [("new",)]


def test_where_a_policy_hides_rows_of_live_nobody_reads_them_beside_it(
    verified, db, database_url, role
):
    db.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    rebuild(verified.settings, ["orders"], STOPPED)
    with client(database_url, role, "migrator_build_2,public") as green:
        assert green.execute(QUERY).fetchall() == []  # of the live table, as blue would
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            green.execute("SELECT FROM migrator_build_2.orders")


def test_who_may_not_read_live_may_not_read_the_build_beside_it(verified, db, database_url, role):
    db.execute(f"REVOKE SELECT ON orders FROM {role}; GRANT INSERT ON orders TO {role}")
    rebuild(verified.settings, ["orders"], STOPPED)
    with (
        client(database_url, role, "public") as green,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        green.execute("SELECT FROM migrator_build_2.orders")


def test_the_same_command_brings_the_build_up_to_date_while_green_reads_it(verified, produce, db):
    rebuild(verified.settings, ["orders"], STOPPED)
    produce(verified.topic, [placed(n) for n in range(10, 14)])
    (told,) = rebuild(verified.settings, ["orders"], STOPPED).projections
    assert (told.build, told.rows, told.lag_events) == (2, 14, 0)
    assert db.execute("SELECT count(*) FROM migrator_build_2.orders").fetchone() == (14,)
