"""Checkpoints on a fake Neon and on a plain PostgreSQL: one suite for both."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from migrator.deploy import checkpoint, mark
from migrator.errors import Busy, MigratorError, Refused, UsageError
from migrator.migrations.up import up
from migrator.settings import load
from tests import revisions


@pytest.fixture(params=["neon", "postgresql"])
def provider(request) -> str:
    return request.param


@pytest.fixture
def shop(provider, request, tmp_path, database_url, monkeypatch):
    """A project with one revision applied and a build at position 5; `shop.run(sql)` on its database."""
    fake = request.getfixturevalue("neon") if provider == "neon" else None
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    revisions.write(tmp_path, "0001", upgrade="op.execute('CREATE TABLE orders (id int)')")
    up(load())

    class Shop:
        neon = fake
        root = tmp_path

        @staticmethod
        def run(*statements: str):
            with psycopg.connect(database_url, autocommit=True) as conn:
                for statement in statements:
                    cursor = conn.execute(statement)
                return cursor.fetchall() if cursor.description else None

    Shop.run(
        """INSERT INTO migrator.build (projection, state, definition_hash, target_schema, table_name)
           VALUES ('customers', 'live', 'x', 'public', 'customers')""",
        """INSERT INTO migrator.position (build, topic, partition, topic_id, next_offset, end_offset)
           VALUES (1, 'orders', 0, 't', 5, 5)""",
        "INSERT INTO orders VALUES (1)",
    )
    yield Shop
    if provider == "postgresql":
        with psycopg.connect(
            database_url.rpartition("/")[0] + "/postgres", autocommit=True
        ) as conn:
            for name in databases(conn, database_url):
                conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def databases(conn, database_url) -> list[str]:
    own = database_url.rpartition("/")[2]
    found = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (own + "\\_%",))
    return [name for (name,) in found]


def second_revision(shop):
    revisions.write(
        shop.root, "0002", revises="0001", upgrade="op.execute('ALTER TABLE orders ADD note text')"
    )
    up(load())


def test_a_checkpoint_records_where_the_ledger_and_the_builds_stand(shop):
    made = checkpoint.create(load(), name="before")
    (row,) = shop.run(
        "SELECT name, state, revision, ledger_entry, builds, branch_id, lsn IS NULL FROM migrator.checkpoint"
    )
    assert row == (
        "before",
        "ready",
        "0001",
        1,
        [
            {
                "build": 1,
                "state": "live",
                "positions": [["orders", 0, 5]],
                "projection": "customers",
            }
        ],
        made.branch.id,
        False,
    )


def test_restore_brings_rows_revisions_and_positions_back_and_keeps_what_was_there(shop):
    checkpoint.create(load(), name="before")
    second_revision(shop)
    shop.run("INSERT INTO orders VALUES (2)", "UPDATE migrator.position SET next_offset = 9")
    planned = checkpoint.plan(load(), "before")
    assert [e.subject for e in planned.since.entries] == ["0002"]
    assert planned.since.events == {"customers, build 1": 4}
    done = checkpoint.restore(load(), planned, reason="it was wrong")
    assert done.at.revision == "0001"
    assert shop.run("SELECT * FROM orders") == [(1,)]
    assert shop.run("SELECT next_offset FROM migrator.position") == [(5,)]
    assert shop.run("SELECT state, reason, kept_as FROM migrator.checkpoint") == [
        ("ready", "it was wrong", done.kept_as)
    ]
    # The same deploy goes on from there.
    up(load())
    assert shop.run("SELECT note FROM orders") == [(None,)]


@pytest.mark.parametrize("moves", [True, False])
def test_a_restore_is_verified_under_the_id_that_the_branch_has_then(
    neon, tmp_path, monkeypatch, moves
):
    monkeypatch.chdir(tmp_path)
    revisions.write(tmp_path, "0001", upgrade="op.execute('CREATE TABLE orders (id int)')")
    neon.project.restore_moves_compute = moves
    up(load())
    checkpoint.create(load(), name="before")
    checkpoint.restore(load(), checkpoint.plan(load(), "before"), reason="r")
    # And again: the checkpoint is below the kept branch now.
    checkpoint.restore(load(), checkpoint.plan(load(), "before"), reason="r")
    assert [c.state for c in checkpoint.every(load())] == ["ready"]


@pytest.mark.parametrize("provider", ["postgresql"])
def test_what_was_there_is_kept_under_the_name_that_was_shown(shop, database_url):
    checkpoint.create(load(), name="before")
    shop.run("INSERT INTO orders VALUES (2)")
    planned = checkpoint.plan(load(), "before")
    kept = checkpoint.restore(load(), planned, reason="r").kept_as
    assert kept == planned.keep_as
    name = shop.neon.project.named(kept).database if shop.neon else kept
    with psycopg.connect(database_url.rpartition("/")[0] + f"/{name}") as conn:
        assert conn.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_an_interrupted_restore_is_finished_and_not_done_twice(shop, monkeypatch):
    checkpoint.create(load(), name="before")
    shop.run("INSERT INTO orders VALUES (2)")
    planned = checkpoint.plan(load(), "before")

    def killed(*_):
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(mark, "read", killed)
        with pytest.raises(RuntimeError):
            checkpoint.restore(load(), planned, reason="r")
    assert shop.run("SELECT id FROM orders") == [(1,)]
    again = checkpoint.plan(load(), "before")
    assert (again.unnoted, again.keep_as) == (True, planned.keep_as)
    checkpoint.restore(load(), again, reason="r")
    (row,) = shop.run("SELECT state, kept_as FROM migrator.checkpoint")
    assert row == ("ready", planned.keep_as)
    # From then on a restore is one again.
    assert not checkpoint.plan(load(), "before").unnoted


@pytest.mark.parametrize("provider", ["neon"])
def test_a_second_checkpoint_of_a_name_is_refused(shop):
    checkpoint.create(load(), name="before")
    with pytest.raises(Refused, match="there is a checkpoint before already"):
        checkpoint.create(load(), name="before")


def test_an_unfinished_checkpoint_is_finished_by_the_same_command(shop):
    first = checkpoint.create(load(), name="before")
    shop.run("UPDATE migrator.checkpoint SET state = 'creating', branch_id = NULL")
    assert [c.state for c in checkpoint.every(load())] == ["unfinished"]
    assert checkpoint.create(load(), name="before").branch.id == first.branch.id
    assert [c.state for c in checkpoint.every(load())] == ["ready"]


@pytest.mark.parametrize("provider", ["postgresql"])
def test_a_checkpoint_whose_branch_was_never_made_is_made_anew(shop):
    checkpoint.create(load(), name="before")
    checkpoint.delete(load(), ["before"])
    shop.run("UPDATE migrator.checkpoint SET state = 'creating'")
    shop.run("INSERT INTO orders VALUES (2)")
    made = checkpoint.create(load(), name="before")
    assert made.state == "ready"
    assert shop.run("SELECT count(*) FROM migrator.checkpoint") == [(1,)]


@pytest.mark.parametrize("provider", ["neon"])
def test_what_is_done_to_the_database_meanwhile_spoils_the_checkpoint(shop, monkeypatch):
    """A revision that lands between the reading and the branch is in one and not in the other."""
    begun = checkpoint._begun

    def slow(*args):
        row = begun(*args)
        second_revision(shop)
        return row

    monkeypatch.setattr(checkpoint, "_begun", slow)
    with pytest.raises(Busy, match="something was done to the database meanwhile: entry 2"):
        checkpoint.create(load(), name="before")
    assert [c.branch for c in checkpoint.every(load())] == [None]


def test_a_checkpoint_made_after_the_one_gone_back_to_is_still_there(shop):
    checkpoint.create(load(), name="first")
    second_revision(shop)
    checkpoint.create(load(), name="second")
    checkpoint.restore(load(), checkpoint.plan(load(), "first"), reason="r")
    states = {c.name: c.state for c in checkpoint.every(load())}
    assert states == {"first": "ready", "second": "ready, from a time that a restore has undone"}
    checkpoint.restore(load(), checkpoint.plan(load(), "second"), reason="r")
    assert shop.run("SELECT version_num FROM alembic_version") == [("0002",)]


def test_delete_takes_the_branch_and_the_row(shop):
    checkpoint.create(load(), name="before")
    assert checkpoint.delete(load(), ["before"]) == ["before"]
    assert checkpoint.every(load()) == []
    assert shop.run("SELECT state FROM migrator.checkpoint") == [("deleted",)]
    with pytest.raises(UsageError, match="unknown checkpoint"):
        checkpoint.delete(load(), ["before"])


@pytest.mark.parametrize("provider", ["neon"])
def test_only_those_whose_time_is_up_are_expired(shop):
    from datetime import timedelta

    checkpoint.create(load(), name="kept")
    made = checkpoint.create(load(), name="short", ttl=timedelta(days=1))
    assert made.branch.expires_at > datetime.now(UTC)
    assert checkpoint.delete(load(), [], expired=True) == []
    found = checkpoint.every(load())
    past = [
        type(c)(
            c.name,
            c.row,
            type(c.branch)(**{**vars(c.branch), "expires_at": datetime(2026, 1, 1, tzinfo=UTC)}),
        )
        if c.name == "short"
        else c
        for c in found
    ]
    assert [c.name for c in checkpoint.to_delete(past, [], expired=True)] == ["short"]


@pytest.mark.parametrize("provider", ["neon"])
def test_a_restored_state_that_lacks_what_was_recorded_is_told(shop, monkeypatch):
    checkpoint.create(load(), name="before")
    planned = checkpoint.plan(load(), "before")
    shop.run("SELECT 1")
    read = mark.read

    def less(conn, settings):
        found = read(conn, settings)
        return mark.Mark(found.taken_at, found.lsn, None, None, None, ())

    monkeypatch.setattr(mark, "read", less)
    with pytest.raises(MigratorError, match="lacks entry 1 of the ledger, build 1 of customers"):
        checkpoint.restore(load(), planned, reason="r")


@pytest.mark.parametrize("provider", ["neon"])
def test_while_a_deployment_is_under_way_nothing_is_taken_or_restored(shop, monkeypatch):
    from migrator.postgres.locks import Holder

    checkpoint.create(load(), name="before")
    planned = checkpoint.plan(load(), "before")
    held = Holder("deploy", "ci@runner", datetime.now(UTC), 1.0)
    monkeypatch.setattr(checkpoint.locks, "holders", lambda _conn: [held])
    for does in (
        lambda: checkpoint.create(load(), name="other"),
        lambda: checkpoint.plan(load(), "before"),
        lambda: checkpoint.restore(load(), planned, reason="r"),
    ):
        with pytest.raises(Busy, match="a deployment is under way: ci@runner"):
            does()


# What is Neon's own


@pytest.fixture
def on_neon(neon, tmp_path, monkeypatch, database_url):
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id int)")
    return neon


def schemas(database_url) -> list[str]:
    with psycopg.connect(database_url) as conn:
        found = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'migrator'")
        return [name for (name,) in found]


@pytest.mark.parametrize("parameter", ["neon.branch_id", "neon.project_id"])
def test_a_database_on_another_branch_is_refused_before_a_single_write(
    on_neon, database_url, parameter
):
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("ALTER DATABASE {} SET {} = 'br-another-1'").format(
                sql.Identifier(name), sql.Identifier(*parameter.split("."))
            )
        )
    with pytest.raises(Refused, match="nothing was written"):
        checkpoint.create(load(), name="before")
    assert schemas(database_url) == []
    assert not any(method == "POST" for method, _, _ in on_neon.requests)


def test_a_database_that_is_not_on_neon_is_refused_before_a_single_write(on_neon, database_url):
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(name)))
    with pytest.raises(Refused, match="leads to no Neon branch"):
        checkpoint.create(load(), name="before")
    assert schemas(database_url) == []


def test_another_branch_than_the_settings_name_is_refused(on_neon, monkeypatch, database_url):
    monkeypatch.setenv("MIGRATOR_NEON_BRANCH", "staging")
    with pytest.raises(Refused, match="named main; nothing was written"):
        checkpoint.create(load(), name="before")
    monkeypatch.setenv("MIGRATOR_NEON_BRANCH", "main")
    assert checkpoint.create(load(), name="before").state == "ready"


def test_a_branch_that_may_not_be_restored_is_left_alone(on_neon):
    checkpoint.create(load(), name="before")
    planned = checkpoint.plan(load(), "before")
    on_neon.project.named("main").restricted = [{"name": "restore", "reason": "it is too old"}]
    with pytest.raises(Refused, match="it is too old"):
        checkpoint.restore(load(), planned, reason="r")
    assert not any("restore" in path for method, path, _ in on_neon.requests if method == "POST")


def test_a_restore_names_the_children_that_move(on_neon):
    checkpoint.create(load(), name="before")
    on_neon.project.add("staging")
    assert checkpoint.plan(load(), "before").reach.children == ("checkpoint/before", "staging")


# What is a plain PostgreSQL's own


@pytest.fixture
def plain(tmp_path, monkeypatch, database_url):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id int)")
    yield database_url.rpartition("/")[2]
    with psycopg.connect(database_url.rpartition("/")[0] + "/postgres", autocommit=True) as conn:
        for name in databases(conn, database_url):
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def role(plain, servers):
    """As the fixture of that name, without a session on the database."""
    name = f"role_{plain[-12:]}"
    with psycopg.connect(servers[0], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield name
        for each in databases(conn, servers[0].rpartition("/")[0] + f"/{plain}"):
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(each)))
        with psycopg.connect(servers[0].rpartition("/")[0] + f"/{plain}", autocommit=True) as own:
            own.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(name)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_copy_ends_no_session_but_names_those_in_its_way(plain, database_url):
    with psycopg.connect(database_url, application_name="the shop", autocommit=True) as conn:
        with pytest.raises(Busy, match=r"process \d+ of postgres \(the shop\)"):
            checkpoint.create(load(), name="before")
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_restore_cuts_the_sessions_that_are_there(plain, database_url):
    checkpoint.create(load(), name="before")
    with psycopg.connect(database_url, autocommit=True) as conn:
        planned = checkpoint.plan(load(), "before")
        assert planned.reach.sessions == 1
        checkpoint.restore(load(), planned, reason="r")
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")


def test_nobody_can_write_to_a_copy(plain, database_url):
    made = checkpoint.create(load(), name="before")
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        psycopg.connect(database_url.rpartition("/")[0] + f"/{made.branch.id}")


def test_settings_and_grants_of_the_database_come_back_with_it(plain, database_url, role):
    with psycopg.connect(database_url, autocommit=True) as conn:
        for text in (
            "ALTER DATABASE {0} SET search_path = \"$user\", app, 'odd name'",
            "ALTER DATABASE {0} SET default_transaction_read_only = off",
            "ALTER ROLE {1} IN DATABASE {0} SET work_mem = '7MB'",
            "REVOKE CONNECT ON DATABASE {0} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {0} TO {1} WITH GRANT OPTION",
            "ALTER DATABASE {0} CONNECTION LIMIT 33",
        ):
            conn.execute(sql.SQL(text).format(sql.Identifier(plain), sql.Identifier(role)))

    def belongs():
        with psycopg.connect(database_url) as conn:
            return conn.execute(
                """SELECT datacl::text, datconnlimit, (
                       SELECT array_agg(setrole::text || setconfig::text ORDER BY setrole)
                       FROM pg_db_role_setting WHERE setdatabase = d.oid)
                   FROM pg_database AS d WHERE datname = current_database()"""
            ).fetchone()

    before = belongs()
    checkpoint.create(load(), name="before")
    checkpoint.restore(load(), checkpoint.plan(load(), "before"), reason="r")
    assert sorted(belongs()[0].strip("{}").split(",")) == sorted(before[0].strip("{}").split(","))
    assert belongs()[1:] == before[1:]


def test_a_database_of_that_name_that_is_not_ours_is_left_alone(plain, database_url):
    with psycopg.connect(database_url.rpartition("/")[0] + "/postgres", autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"{plain}_checkpoint_x")))
    with pytest.raises(Refused, match="migrator has not made it"):
        checkpoint.create(load(), name="x")
    assert [c.branch for c in checkpoint.every(load())] == [None]


def test_a_role_that_may_not_copy_is_told_what_it_needs(plain, database_url, role, monkeypatch):
    checkpoint.create(load(), name="first")  # makes the ledger
    with psycopg.connect(database_url, autocommit=True) as conn:
        for text in (
            "GRANT USAGE ON SCHEMA migrator TO {}",
            "GRANT ALL ON ALL TABLES IN SCHEMA migrator TO {}",
        ):
            conn.execute(sql.SQL(text).format(sql.Identifier(role)))
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url.replace("postgres@", f"{role}@", 1))
    with pytest.raises(MigratorError, match="may not do this on the server") as caught:
        checkpoint.create(load(), name="second")
    assert "CREATEDB" in str(caught.value)


def test_a_name_that_no_branch_can_have_is_a_usage_error(plain):
    for name in ("", "a/b", "-x", "x" * 41, "Ü"):
        if name:
            with pytest.raises(UsageError, match="cannot be the name of a branch"):
                checkpoint.create(load(), name=name)


# The commands


def test_the_command_line_goes_there_and_back(shop, cli):
    made = cli("checkpoint", "create", "--name", "before", "--ttl", "12h")
    assert made.exit_code == 0, made.output
    assert "before" in made.stdout
    assert "until" in cli("checkpoint", "list").stdout
    shown = cli("checkpoint", "restore", "before", "--dry-run")
    assert "every row written since" in shown.stdout
    assert "Nothing was changed" in shown.stdout
    asked = cli("checkpoint", "restore", "before", "--reason", "r")
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    done = cli("--json", "checkpoint", "restore", "before", "--reason", "r", "--yes")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["restored"] is True
    assert cli("checkpoint", "delete", "before", "--dry-run").stdout.startswith("would be deleted")
    assert cli("checkpoint", "delete", "before").stdout == "deleted: before\n"
    assert cli("checkpoint", "list").stdout == "There is no checkpoint.\n"


@pytest.mark.parametrize("provider", ["postgresql"])
def test_a_dry_run_makes_nothing(shop, cli):
    said = cli("checkpoint", "create", "--dry-run")
    assert "would be made" in said.stdout
    assert "-0001" in said.stdout
    assert cli("checkpoint", "list").stdout == "There is no checkpoint.\n"


@pytest.mark.parametrize("ttl", ["7", "0d", "1w", "-1d"])
def test_a_span_that_is_none_is_a_usage_error(plain, cli, ttl):
    assert cli("checkpoint", "create", "--ttl", ttl).exit_code == 2


def test_delete_without_a_name_is_a_usage_error(plain, cli):
    assert cli("checkpoint", "delete").exit_code == 2
