from __future__ import annotations

import json
import uuid

import psycopg
import pytest
from psycopg import sql

from migrator.errors import Refused, UsageError
from migrator.migrations import repair, scratch, up, verify
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.settings import load
from tests import revisions
from tests.integration.test_snapshot import SCHEMA


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


@pytest.fixture(autouse=True)
def prefix(monkeypatch):
    """Scratch databases of this test's own: the server is shared with tests that run beside it."""
    made = f"migrator_verify_{uuid.uuid4().hex[:12]}_"
    monkeypatch.setattr(scratch, "PREFIX", made)
    return made


@pytest.fixture
def applied(tmp_path, settings):
    """Three revisions: table t, its index, a view."""
    revisions.chain(
        tmp_path,
        ("0001", 'op.execute("CREATE TABLE t (a int NOT NULL, b text)")', "DROP TABLE t;"),
        ("0002", 'op.execute("CREATE INDEX t_a ON t (a)")', "DROP INDEX t_a;"),
        ("0003", 'op.execute("CREATE VIEW v AS SELECT a FROM t")', "DROP VIEW v;"),
    )
    up.up(settings)
    return settings


def edit(tmp_path, revision, old, new):
    path = tmp_path / f"migrations/versions/{revision}_x.py"
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))


def problems(settings, **options):
    return [f for f in verify.verify(settings, **options).findings if f.is_problem]


def problem(settings, **options):
    (found,) = problems(settings, **options)
    return found


def scratches(db):
    rows = db.execute(
        "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (scratch.PREFIX,)
    )
    return [name for (name,) in rows]


def test_a_database_that_the_revisions_made_is_clean(applied, cli):
    result = cli("verify")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.endswith("Database, ledger and files belong together.\n")
    assert "skipped" not in result.stdout


def test_it_prints_the_last_link_of_the_chain(applied, cli):
    with connect(applied, "test") as conn:
        last = ledger.entries(conn)[-1].entry_hash
    assert json.loads(cli("--json", "verify", "--skip-drift").stdout)["last_link"] == last


def test_an_empty_database_is_clean(tmp_path, settings):
    revisions.tables(tmp_path, 1)
    assert verify.verify(settings).is_clean


# Files


def test_a_licence_header_and_a_comment_in_sql_are_no_tampering(applied, tmp_path):
    edit(tmp_path, "0001", '"""Revision', '# (c) 2026\n"""Revision')
    edit(tmp_path, "0001", '"CREATE TABLE t', '"/* (c) 2026 */ create table t')
    assert problems(applied) == []


def test_a_file_that_was_edited_is_named_with_both_hashes_and_the_way_on(applied, tmp_path):
    with connect(applied, "test") as conn:
        stored = ledger.entries(conn)[1].source_hash
    edit(tmp_path, "0002", "(a)", "(b)")
    found = problem(applied, with_drift=False)
    assert found.check == "files"
    assert "0002_x.py was edited after 0002 was applied: its source_hash is" in found.found
    assert stored in found.expected
    assert 'migrator repair 0002 --reason "why"' in found.next_step


def test_a_phase_that_was_edited_is_said(applied, tmp_path):
    edit(tmp_path, "0002", "expand", "contract")
    assert "(phase was expand and is contract)" in problem(applied, with_drift=False).found


def test_a_file_that_is_gone_is_named_though_the_others_make_no_chain(applied, tmp_path):
    (tmp_path / "migrations/versions/0002_x.py").unlink()
    found = problems(applied)
    assert [f.subject for f in found] == ["files", "0002"]
    assert "no file here has revision 0002" in found[1].found


def test_a_file_of_the_newest_revision_that_is_gone_is_named(applied, tmp_path):
    (tmp_path / "migrations/versions/0003_x.py").unlink()
    report = verify.verify(applied)
    assert [f.subject for f in report.findings if f.is_problem] == ["0003"]
    (drift,) = [c for c in report.checks if c.check == "drift"]
    assert drift.skipped == "no file here has 0003"


def test_another_rollback_script_is_told_and_is_no_problem(applied, tmp_path):
    script = tmp_path / "migrations/rollback/0003.sql"
    script.write_text("-- a comment\nDROP VIEW v;")
    assert verify.verify(applied).findings == ()
    script.write_text("DROP VIEW IF EXISTS v;")
    (found,) = verify.verify(applied).findings
    assert not found.is_problem
    assert "rollback/0003.sql is not the script that was stored" in found.found


def test_without_a_folder_it_is_a_usage_error(settings):
    with pytest.raises(UsageError, match="there is no folder"):
        verify.verify(settings)


# The ledger


def test_a_tampered_entry_is_named(applied, db):
    db.execute("UPDATE migrator.ledger SET phase = 'contract' WHERE entry = 2")
    found = problem(applied)
    assert (found.check, found.subject) == ("chain", "2")
    assert "entry 2 (up 0002) is tampered" in found.found


def test_a_removed_entry_is_noticed(applied, db):
    db.execute("DELETE FROM migrator.ledger WHERE entry = 1")
    found = problem(applied)
    assert "the entry before entry 2 (up 0002) is missing" in found.found


def test_a_tampered_rollback_script_is_named(applied, db):
    db.execute("UPDATE migrator.ledger SET rollback_script = 'DROP TABLE t' WHERE entry = 2")
    found = [f for f in problems(applied) if f.check == "rollback scripts"]
    assert [f.revision for f in found] == ["0002"]


def test_a_version_table_that_was_edited_is_told_and_the_rest_is_checked(applied, db):
    db.execute("UPDATE alembic_version SET version_num = '0001'; DROP INDEX t_a")
    report = verify.verify(applied)
    assert any("alembic_version names 0001" in f.found for f in report.findings)
    assert next(c for c in report.checks if c.check == "drift").skipped


# Drift


@pytest.mark.parametrize(
    ("ddl", "subject", "revision"),
    [
        ("ALTER TABLE t ALTER a DROP NOT NULL", "column public.t.a", "0001"),
        ("ALTER TABLE t ADD COLUMN c int", "column public.t.c", "0001"),
        ("DROP INDEX t_a", "index public.t_a", "0002"),
        ("CREATE OR REPLACE VIEW v AS SELECT a + 1 - 1 AS a FROM t", "view public.v", "0003"),
        ("CREATE TABLE by_hand (x int)", "table public.by_hand", None),
    ],
)
def test_drift_is_told_with_the_revision_that_last_touched_it(applied, db, ddl, subject, revision):
    db.execute(ddl)
    found = problem(applied)
    assert (found.check, found.subject, found.revision) == ("drift", subject, revision)


def test_where_only_the_table_is_known_to_a_revision_that_is_said(applied, db):
    db.execute("ALTER TABLE t ADD CONSTRAINT by_hand CHECK (a > 0)")
    assert problem(applied).expected == "it is not there; revision 0001 last touched table t"


def test_a_difference_has_both_values_in_text_and_json(applied, db, cli):
    db.execute("ALTER TABLE t ALTER a SET DEFAULT 7")
    result = cli("verify")
    assert result.exit_code == 1
    assert "column public.t.a: default is 7\n           expected: not set" in result.stdout
    document = json.loads(cli("--json", "verify").stdout)
    assert document["clean"] is False
    assert document["findings"][0]["revision"] == "0001"


def test_the_scratch_database_is_dropped_whatever_happens(applied, tmp_path, db):
    verify.verify(applied)
    assert scratches(db) == []
    edit(tmp_path, "0002", "CREATE INDEX t_a ON t (a)", "SELECT 1 / (SELECT count(*) FROM t)")
    report = verify.verify(applied)
    assert scratches(db) == []
    (drift,) = [c for c in report.checks if c.check == "drift"]
    assert drift.skipped.startswith("the revisions cannot be built from empty: 0002 fails there")


def test_what_a_killed_run_has_left_is_dropped_and_a_running_one_is_not(applied, db, prefix):
    old, young = f"{prefix}1000000000_dead", f"{prefix}9999999999_beef"
    db.execute(f"CREATE DATABASE {old}")
    db.execute(f"CREATE DATABASE {young}")
    verify.verify(applied)
    assert scratches(db) == [young]
    db.execute(f"DROP DATABASE {young}")


def test_pending_revisions_are_not_expected(applied, tmp_path):
    revisions.write(tmp_path, "0004", 'op.execute("DROP VIEW v")', revises="0003")
    assert problems(applied) == []


def test_roles_and_databases_are_not_touched_by_the_scratch_build(tmp_path, settings, db, role):
    name = db.info.dbname
    revisions.write(
        tmp_path,
        "0001",
        f"""
        op.execute("ALTER ROLE {role} CONNECTION LIMIT 7")
        op.execute("CREATE TABLE t (a int); ALTER DATABASE {name} SET work_mem = '7MB'")
        """,
    )
    up.up(settings)
    db.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3; ALTER DATABASE {name} SET work_mem = '3MB'")
    assert problems(settings) == []
    limit = db.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    assert limit == (3,)
    with psycopg.connect(db.info.dsn) as conn:
        assert conn.execute("SHOW work_mem").fetchone() == ("3MB",)


def test_privileges_and_comments_of_the_server_are_not_touched_either(tmp_path, settings, db, role):
    name = db.info.dbname
    revisions.write(
        tmp_path,
        "0001",
        f"""
        op.execute("GRANT TEMPORARY ON DATABASE {name} TO {role}")
        op.execute("COMMENT ON ROLE {role} IS 'x'; COMMENT ON DATABASE {name} IS 'x'")
        """,
    )
    up.up(settings)
    db.execute(
        f"""REVOKE TEMPORARY ON DATABASE {name} FROM {role};
            COMMENT ON ROLE {role} IS NULL; COMMENT ON DATABASE {name} IS NULL"""
    )
    report = verify.verify(settings)
    assert (report.is_clean, report.is_complete) == (True, True)
    assert server_wide(db, role) == (None, None, False)


def server_wide(db, role):
    return db.execute(
        """SELECT shobj_description(oid, 'pg_authid'),
                  (SELECT shobj_description(oid, 'pg_database') FROM pg_database
                    WHERE datname = current_database()),
                  (SELECT datacl::text ~ %s FROM pg_database WHERE datname = current_database())
           FROM pg_roles WHERE rolname = %s""",
        (role, role),
    ).fetchone()


HIDDEN = "DO $$ BEGIN ALTER ROLE {role} CONNECTION LIMIT 7; END $$"


@pytest.mark.parametrize(
    "sql",
    [
        HIDDEN,
        "DO $$ BEGIN EXECUTE 'GRANT pg_monitor TO ' || '{role}'; END $$",
        """CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'ALTER ROLE {role} SET work_mem = 99';
           SELECT f()""",
        "DO $$ BEGIN BEGIN ALTER ROLE {role} PASSWORD 'x'; END; END $$",
    ],
)
def test_a_role_that_is_changed_by_a_block_or_function_stops_the_scratch_build(
    tmp_path, settings, db, role, sql
):
    revisions.write(tmp_path, "0001", f"op.execute({sql.format(role=role)!r})")
    up.up(settings)
    db.execute(
        f"""ALTER ROLE {role} CONNECTION LIMIT 3 PASSWORD NULL; ALTER ROLE {role} RESET ALL;
            REVOKE pg_monitor FROM {role}"""
    )
    before = of_role(db, role)
    (drift,) = [c for c in verify.verify(settings).checks if c.check == "drift"]
    assert "revision 0001 changes what all databases of the server share" in drift.skipped
    assert "--skip-drift" in drift.next_step
    assert of_role(db, role) == before
    assert scratches(db) == []


def of_role(db, role):
    return db.execute(
        """SELECT to_jsonb(a), (SELECT array_agg(setconfig) FROM pg_db_role_setting
                                 WHERE setrole = a.oid),
                  (SELECT count(*) FROM pg_auth_members WHERE member = a.oid)
           FROM pg_authid a WHERE rolname = %s""",
        (role,),
    ).fetchone()


def test_a_block_that_finds_its_role_there_already_changes_nothing_and_builds(
    tmp_path, settings, db, role
):
    block = f"BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END"
    revisions.write(tmp_path, "0001", f'op.execute("DO $$ {block} $$")')
    up.up(settings)
    report = verify.verify(settings)
    assert (report.is_clean, report.is_complete) == (True, True)


@pytest.mark.parametrize(
    "upgrade",
    [
        """
        with op.get_context().autocommit_block():
            op.execute("{hidden}")
        """,
        """
        op.execute("{hidden}")
        op.execute("COMMIT")
        """,
    ],
)
def test_an_exempt_revision_that_commits_by_itself_is_stopped_before_it_does(
    tmp_path, settings, make_settings, db, role, upgrade
):
    revisions.write(tmp_path, "0001", upgrade.format(hidden=HIDDEN.format(role=role)))
    revisions.write(tmp_path, "0002", revises="0001")
    exempt = make_settings(tmp_path, migrations={"rules_from": "0002"})
    up.up(exempt)
    db.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3")
    (drift,) = [c for c in verify.verify(exempt).checks if c.check == "drift"]
    assert "revision 0001 changes what all databases" in drift.skipped
    limit = db.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    assert limit == (3,)


def test_a_subscription_is_told_to_be_left_out_and_is_no_problem(applied, db):
    db.execute(
        """CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=s3cret' PUBLICATION p
           WITH (connect = false, slot_name = NONE, enabled = false)"""
    )
    report = verify.verify(applied)
    db.execute("DROP SUBSCRIPTION sub")
    (found,) = report.findings
    assert (found.subject, found.is_problem) == ("subscription sub", False)
    assert "is not compared" in found.found
    assert "s3cret" not in repr(report)


EVERYTHING = SCHEMA.replace("CREATE EXTENSION pg_trgm;", "")


def test_one_of_everything_is_clean_and_what_is_made_by_hand_beside_it_is_told(
    tmp_path, settings, db
):
    revisions.write(tmp_path, "0001", f"op.get_bind().exec_driver_sql({EVERYTHING!r})")
    up.up(settings)
    report = verify.verify(settings)
    assert [f.found for f in report.findings] == []
    assert report.is_complete
    db.execute(
        """CREATE PUBLICATION by_hand; CREATE SERVER by_hand FOREIGN DATA WRAPPER fdw;
           CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (password 's3cret');
           CREATE CAST (int AS app.mood) WITH INOUT; CREATE COLLATION by_hand (locale = 'C');
           CREATE TEXT SEARCH CONFIGURATION by_hand (COPY = app.conf);
           ALTER EVENT TRIGGER heard DISABLE; DROP CONVERSION app.conv"""
    )
    report = verify.verify(settings)
    assert {f.subject for f in report.findings} == {
        "publication by_hand",
        "foreign server by_hand",
        "user mapping PUBLIC SERVER away",
        "cast integer AS app.mood",
        "collation public.by_hand",
        "text search configuration public.by_hand",
        "event trigger heard",
        "conversion app.conv",
    }
    assert "s3cret" not in repr(report)


def test_the_databases_search_path_counts_in_the_scratch_database(tmp_path, settings, db):
    db.execute(f"CREATE SCHEMA app; ALTER DATABASE {db.info.dbname} SET search_path = app, public")
    revisions.write(
        tmp_path, "0001", 'op.execute("CREATE SCHEMA IF NOT EXISTS app; CREATE TABLE t (a int)")'
    )
    up.up(settings)
    assert db.execute("SELECT to_regclass('app.t') IS NOT NULL").fetchone() == (True,)
    assert problems(settings) == []


def test_an_extension_counts_only_where_a_revision_makes_it(applied, tmp_path, db):
    db.execute("CREATE EXTENSION pg_trgm")
    assert problems(applied) == []
    revisions.write(tmp_path, "0004", 'op.execute("CREATE EXTENSION citext")', revises="0003")
    up.up(applied)
    db.execute("DROP EXTENSION citext")
    assert problem(applied).subject == "extension citext"


def test_live_tables_of_projections_are_left_out(applied, db):
    db.execute("CREATE TABLE orders (id serial PRIMARY KEY); CREATE INDEX ON orders (id)")
    assert [f.subject for f in problems(applied)] == ["table public.orders"]
    db.execute(
        """INSERT INTO migrator.build (projection, state, definition_hash, target_schema, table_name)
           VALUES ('orders', 'live', 'x', 'public', 'orders');
           CREATE SCHEMA migrator_build_1; CREATE TABLE migrator_build_1.orders (id int)"""
    )
    assert problems(applied) == []


def test_a_role_that_may_not_create_databases_has_the_rest_checked(applied, db, role, tmp_path):
    db.execute(
        sql.SQL(
            "GRANT USAGE ON SCHEMA migrator TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA "
            "migrator, public TO {0}"
        ).format(sql.Identifier(role))
    )
    edit(tmp_path, "0002", "(a)", "(b)")
    url = applied.database.url.get_secret_value().replace("postgres@", f"{role}@")
    report = verify.verify(load(overrides={"database": {"url": url}}))
    (drift,) = [c for c in report.checks if c.check == "drift"]
    assert drift.skipped == f"role {role} may not create the scratch database"
    assert "CREATEDB" in drift.next_step
    assert [f.check for f in report.findings] == ["files"]


def test_drift_that_could_not_be_checked_is_no_success(applied, db, cli):
    db.execute(f"ALTER DATABASE {db.info.dbname} SET default_transaction_read_only = on")
    result = cli("verify")
    assert result.exit_code == 1
    assert "skipped  drift: the server is read-only" in result.stdout
    assert "next: run migrator verify against the primary" in result.stdout
    assert "Not everything could be checked" in result.stdout
    document = json.loads(cli("--json", "verify").stdout)
    assert (document["clean"], document["complete"]) == (True, False)


def test_drift_that_need_not_be_checked_is_skipped_with_success(applied, db, cli):
    db.execute("DROP INDEX t_a")
    result = cli("verify", "--skip-drift")
    assert (result.exit_code, "skipped  drift: as --skip-drift asks" in result.stdout) == (0, True)
    assert result.stdout.endswith("Nothing wrong was found in what was checked.\n")
    document = json.loads(cli("--json", "verify", "--skip-drift").stdout)
    assert (document["clean"], document["complete"]) == (True, True)


def test_an_alembic_database_without_a_ledger_is_checked_for_drift(applied, db):
    db.execute("DROP SCHEMA migrator CASCADE")
    assert problems(applied) == []
    db.execute("DROP INDEX t_a")
    assert problem(applied).subject == "index public.t_a"


# Half-built objects


def test_an_invalid_index_is_told_once(applied, db):
    db.execute("INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute("CREATE UNIQUE INDEX CONCURRENTLY t_u ON t (a)")
    found = problem(applied)
    assert (found.check, found.subject) == ("indexes", "public.t_u")
    assert "REINDEX INDEX CONCURRENTLY public.t_u;" in found.next_step


def test_an_unvalidated_constraint_is_a_problem_unless_the_revisions_leave_it_so(
    applied, db, tmp_path
):
    db.execute("ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0) NOT VALID")
    assert "constraints" in {f.check for f in problems(applied)}
    db.execute("ALTER TABLE t DROP CONSTRAINT positive")
    revisions.write(
        tmp_path,
        "0004",
        'op.execute("ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0) NOT VALID")',
        revises="0003",
        head='phase = "contract"',
    )
    up.up(applied)
    (found,) = verify.verify(applied).findings
    assert (found.check, found.is_problem) == ("constraints", False)
    assert "ALTER TABLE public.t VALIDATE CONSTRAINT positive;" in found.next_step


# Repair


def test_a_repaired_file_is_accepted_from_then_on(applied, tmp_path, cli):
    edit(tmp_path, "0002", "CREATE INDEX", "CREATE INDEX IF NOT EXISTS")
    assert cli("verify").exit_code == 1
    result = cli("repair", "0002", "--reason", "safe to repeat", "--yes")
    assert "accepted in entry 4" in result.stdout
    assert cli("verify").exit_code == 0


def test_a_repair_is_one_new_entry_and_changes_no_other(applied, tmp_path):
    with connect(applied, "test") as conn:
        before = ledger.entries(conn)
    edit(tmp_path, "0002", "CREATE INDEX", "CREATE INDEX IF NOT EXISTS")
    repair.repair(applied, repair.plan(applied, "0002"), reason="why")
    with connect(applied, "test") as conn:
        *old, new = ledger.entries(conn)
    assert old == before
    assert (new.act, new.subject, new.reason) == ("repair", "0002", "why")
    assert ledger.broken_links([*old, new]) == []


def test_a_repair_accepts_one_edit_and_not_the_next(applied, tmp_path):
    edit(tmp_path, "0002", "CREATE INDEX", "CREATE INDEX IF NOT EXISTS")
    repair.repair(applied, repair.plan(applied, "0002"), reason="why")
    edit(tmp_path, "0002", "(a)", "(b)")
    assert problem(applied, with_drift=False).revision == "0002"


def test_a_repair_of_what_is_not_edited_changes_nothing(applied, cli):
    result = cli("repair", "0002", "--reason", "why", "--yes")
    assert result.exit_code == 0
    assert "0002_x.py is what the ledger says" in result.stdout
    with connect(applied, "test") as conn:
        assert len(ledger.entries(conn)) == 3


def test_a_dry_run_of_a_repair_shows_both_hashes_and_changes_nothing(applied, tmp_path, cli):
    edit(tmp_path, "0002", "(a)", "(b)")
    document = json.loads(cli("--json", "repair", "0002", "--dry-run").stdout)
    assert document["accepted_hash"] != document["source_hash"]
    with connect(applied, "test") as conn:
        assert len(ledger.entries(conn)) == 3


def test_a_repair_needs_a_reason_and_consent(applied, tmp_path, cli):
    edit(tmp_path, "0002", "(a)", "(b)")
    assert "needs a reason" in cli("repair", "0002", "--yes").stderr
    result = cli("repair", "0002", "--reason", "why")
    assert (result.exit_code, "--yes" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("revision", "error", "said"),
    [
        ("0009", UsageError, "unknown revision '0009'"),
        ("0004", Refused, "revision 0004 has no entry in the ledger that stands"),
        ("0003", Refused, "no file here has revision 0003"),
    ],
)
def test_what_cannot_be_repaired_is_refused(applied, tmp_path, revision, error, said):
    if revision == "0004":
        revisions.write(tmp_path, "0004", revises="0003")
    if revision == "0003":
        (tmp_path / "migrations/versions/0003_x.py").unlink()
    with pytest.raises(error, match=said):
        repair.plan(applied, revision)


def test_a_second_repair_of_the_same_plan_is_refused(applied, tmp_path):
    edit(tmp_path, "0002", "(a)", "(b)")
    planned = repair.plan(applied, "0002")
    repair.repair(applied, planned, reason="why")
    with pytest.raises(Refused, match="repaired meanwhile"):
        repair.repair(applied, planned, reason="why")


def test_a_database_that_was_adopted_is_clean_and_its_files_are_guarded(applied, tmp_path, db, cli):
    db.execute("DROP SCHEMA migrator CASCADE")
    result = cli("baseline", "0003", "--yes")
    assert result.exit_code == 0, result.stderr
    assert problems(applied) == []
    edit(tmp_path, "0003", "SELECT a", "SELECT a AS b")
    assert "files" in {f.check for f in problems(applied)}
