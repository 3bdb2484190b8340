"""An existing Alembic project and its database are taken as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from migrator.deploy import rollback, status
from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import baseline, up
from migrator.postgres import ledger
from migrator.settings import load
from tests import revisions

ENV = """
from alembic import context
from sqlalchemy import create_engine
import os
url = os.environ["MIGRATOR_DATABASE_URL"].replace("://", "+psycopg://")
with create_engine(url).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""


@pytest.fixture
def settings(tmp_path, make_settings):
    return make_settings(tmp_path)


def configured(root, **migrations):
    """The settings, with what the test says in a settings file."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in migrations.items()]
    (root / "migrator.toml").write_text("\n".join(["[migrations]", *lines]))
    return load()


def alembic(root, target: str) -> None:
    """Let plain Alembic upgrade the database, with an env.py of its own."""
    (root / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    (root / "migrations/env.py").write_text(ENV)
    command = [sys.executable, "-m", "alembic", "upgrade", target]
    subprocess.run(command, cwd=root, check=True, capture_output=True, env=dict(os.environ))


def versions(db) -> list[str]:
    found = db.execute("SELECT version_num FROM alembic_version ORDER BY 1")
    return [name for (name,) in found]


def exists(db, relation: str) -> bool:
    return db.execute("SELECT to_regclass(%s)", (relation,)).fetchone() != (None,)


def acts(db) -> list[tuple[str, str]]:
    return [(entry.act, entry.subject) for entry in ledger.entries(db)]


def bare(root, revision, upgrade="pass", *, revises=None, head=""):
    """A revision as plain Alembic has it: no phase, no rollback script."""
    return revisions.write(root, revision, upgrade, revises=revises, rollback=None, head=head)


# Baseline


def test_a_baseline_gives_each_revision_of_an_alembic_database_an_entry(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    alembic(tmp_path, "head")
    revisions.write(tmp_path, "0003", revises="0002")
    baseline.baseline(settings, "0002")
    first, second = ledger.entries(db)
    assert (first.act, first.subject, first.revises) == ("baseline", "0001", None)
    assert (second.subject, second.revises, second.phase) == ("0002", "0001", "expand")
    assert first.source_hash != second.source_hash
    assert second.entry_hash == ledger.chain(first.entry_hash, ledger_said(second))
    assert versions(db) == ["0002"]


def ledger_said(entry):
    return ledger.NewEntry(
        **{name: getattr(entry, name) for name in ledger.NewEntry.__dataclass_fields__}
    )


def test_after_a_baseline_up_and_rollback_go_on_from_there(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    alembic(tmp_path, "head")
    baseline.baseline(settings, "0001")
    revisions.tables(tmp_path, 3)
    up.up(settings)
    rollback.rollback(settings, rollback.plan(settings, to="0001"), reason="try")
    assert versions(db) == ["0001"]
    assert exists(db, "t1")
    assert not exists(db, "t2")
    with pytest.raises(Refused, match="nothing to roll back"):
        rollback.plan(settings)


def test_a_schema_of_other_tools_is_stamped(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 2)
    db.execute("CREATE TABLE t1 (a int); CREATE TABLE t2 (a int)")
    result = cli("baseline", "0002", "--yes")
    assert result.exit_code == 0, result.stderr
    assert versions(db) == ["0002"]
    assert acts(db) == [("baseline", "0001"), ("baseline", "0002")]
    assert up.up(settings).applied == ()


def test_plain_alembic_takes_the_stamp_for_its_own(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    db.execute("CREATE TABLE t1 (a int)")
    baseline.baseline(settings, "0001")
    alembic(tmp_path, "head")
    assert versions(db) == ["0002"]


def test_a_baseline_repeated_writes_nothing_more(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 1)
    alembic(tmp_path, "head")
    cli("baseline", "0001", "--yes")
    again = cli("baseline", "0001", "--yes")
    assert "nothing to write" in again.stdout
    assert acts(db) == [("baseline", "0001")]


def test_a_dry_run_of_a_baseline_changes_nothing(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 2)
    db.execute("CREATE TABLE t1 (a int)")
    result = cli("--json", "baseline", "0002", "--dry-run")
    assert json.loads(result.stdout)["entries"] == ["0001", "0002"]
    assert not exists(db, "alembic_version")
    assert not exists(db, "migrator.ledger")


def test_a_baseline_is_confirmed(tmp_path, settings, db, cli):
    revisions.tables(tmp_path, 1)
    db.execute("CREATE TABLE t1 (a int)")
    assert cli("baseline", "0001").exit_code == 2
    assert not exists(db, "alembic_version")


def test_a_baseline_of_an_unknown_revision_is_refused(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    with pytest.raises(UsageError, match="unknown revision '0009'"):
        baseline.plan(settings, "0009")


@pytest.mark.parametrize("revision", ["0001", "0003"])
def test_a_baseline_elsewhere_than_the_version_table_says_is_refused(
    tmp_path, settings, db, revision
):
    revisions.tables(tmp_path, 3)
    alembic(tmp_path, "0002")
    with pytest.raises(Refused, match=f"names 0002, not {revision}") as caught:
        baseline.baseline(settings, revision)
    assert caught.value.next_step == "migrator baseline 0002, then migrator up"
    assert acts(db) == []


def test_a_baseline_of_an_empty_database_is_refused(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    with pytest.raises(Refused, match="holds no table at all"):
        baseline.plan(settings, "0001")


def test_a_baseline_below_what_the_ledger_says_is_refused(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    up.up(settings)
    db.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(Refused, match="the ledger says that 0002 is applied"):
        baseline.plan(settings, "0001")


def test_where_plain_alembic_went_further_than_the_ledger_a_baseline_heals(tmp_path, settings, db):
    revisions.tables(tmp_path, 3)
    up.up(settings, to="0001")
    alembic(tmp_path, "0003")
    with pytest.raises(Refused, match="the newest revision in the ledger is 0001") as caught:
        up.up(settings)
    assert caught.value.next_step.endswith("migrator baseline 0003")
    baseline.baseline(settings, "0003")
    assert acts(db) == [("up", "0001"), ("baseline", "0002"), ("baseline", "0003")]
    assert up.up(settings).version == "0003"


def test_a_baseline_written_late_leaves_the_newest_revision_the_one_to_undo(tmp_path, settings, db):
    revisions.tables(tmp_path, 1)
    alembic(tmp_path, "head")
    revisions.tables(tmp_path, 2)
    up.up(settings)
    baseline.baseline(settings, "0002")
    assert acts(db) == [("up", "0002"), ("baseline", "0001")]
    rollback.rollback(settings, rollback.plan(settings), reason="try")
    assert versions(db) == ["0001"]


# Revisions from before the rules


def test_exempt_revisions_need_neither_phase_nor_script_and_later_ones_do(tmp_path, settings, db):
    bare(tmp_path, "0001", 'op.execute("CREATE TABLE t1 (a int)")')
    bare(tmp_path, "0002", revises="0001")
    with pytest.raises(Refused) as caught:
        up.up(configured(tmp_path, rules_from="0002"))
    assert {problem["revision"] for problem in caught.value.data["problems"]} == {"0002"}
    revisions.write(tmp_path, "0002", revises="0001")
    assert up.up(configured(tmp_path, rules_from="0002"), phase="expand").version == "0002"
    assert [entry.phase for entry in ledger.entries(db)] == [None, "expand"]


SEVERAL = """
op.execute("CREATE TABLE t (a int)")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)")
    op.execute("INSERT INTO t VALUES (1)")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY t_b ON t ((a + 1))")
op.execute("ALTER TABLE t ADD COLUMN b int")
"""


def test_an_exempt_revision_runs_as_many_statements_outside_a_transaction_as_it_likes(
    tmp_path, settings, db
):
    bare(tmp_path, "0001", SEVERAL)
    revisions.write(tmp_path, "0002", revises="0001")
    up.up(configured(tmp_path, rules_from="0002"))
    assert db.execute("SELECT a, b FROM t").fetchall() == [(1, None)]
    assert exists(db, "t_a")
    assert exists(db, "t_b")
    assert acts(db) == [("up", "0001"), ("up", "0002")]


def test_an_exempt_revision_may_commit_by_itself(tmp_path, settings, db):
    bare(
        tmp_path,
        "0001",
        """
        op.execute("CREATE TABLE t (a int)")
        op.execute("COMMIT")
        op.execute("CREATE TABLE u (a int)")
        """,
    )
    revisions.write(tmp_path, "0002", revises="0001")
    assert up.up(configured(tmp_path, rules_from="0002")).version == "0002"
    assert exists(db, "u")


def test_the_first_revision_under_the_rules_may_not_commit_by_itself(tmp_path, settings, db):
    bare(tmp_path, "0001", 'op.execute("COMMIT")')
    revisions.write(tmp_path, "0002", 'op.execute("COMMIT")', revises="0001")
    with pytest.raises(Refused, match="0002 would leave its transaction"):
        up.up(configured(tmp_path, rules_from="0002"))
    assert versions(db) == ["0001"]


# Branches and merges


def diamond(root):
    revisions.write(root, "a", 'op.execute("CREATE TABLE ta (a int)")', rollback="DROP TABLE ta;")
    for name in ("b", "c"):
        create = f'op.execute("CREATE TABLE t{name} (a int)")'
        undo = f"DROP TABLE t{name};"
        revisions.write(root, name, create, revises="a", rollback=undo)
    revisions.write(root, "m", revises=("b", "c"), rollback=None, head="")
    revisions.write(root, "z", revises="m")


def test_a_history_with_a_merge_is_applied_to_its_one_head(tmp_path, settings, db):
    diamond(tmp_path)
    outcome = up.up(configured(tmp_path, rules_from="z"))
    assert (outcome.version, versions(db)) == ("z", ["z"])
    assert {subject for _, subject in acts(db)} == {"a", "b", "c", "m", "z"}
    assert up.up(load()).applied == ()


def test_a_pending_merge_under_the_rules_is_refused(tmp_path, settings, db):
    diamond(tmp_path)
    revisions.write(tmp_path, "m", revises=("b", "c"))
    with pytest.raises(Refused, match="a pending revision revises exactly one"):
        up.up(settings)


def test_stopped_between_its_branches_the_database_names_both(tmp_path, settings, db):
    diamond(tmp_path)
    settings = configured(tmp_path, rules_from="z")
    both = up.up(settings, to=second_branch(settings))
    assert both.version == "b, c"
    assert versions(db) == ["b", "c"]
    found = status.status(settings).revisions
    assert (found.version, found.applied, found.pending) == ("b, c", 3, ("m", "z"))
    assert up.up(settings).version == "z"


def second_branch(settings) -> str:
    from migrator.migrations import history

    return history.read(settings).ids[2]


def test_undoing_a_branch_leaves_the_other_one_the_head(tmp_path, settings, db):
    diamond(tmp_path)
    settings = configured(tmp_path, rules_from="z")
    second = second_branch(settings)
    up.up(settings, to=second)
    rollback.rollback(settings, rollback.plan(settings), reason="try")
    assert versions(db) == sorted({"b", "c"} - {second})
    rollback.rollback(settings, rollback.plan(settings), reason="try")
    assert versions(db) == ["a"]


def test_undoing_a_merge_leaves_both_its_branches_heads(tmp_path, settings, db):
    diamond(tmp_path)
    (tmp_path / "migrations/rollback/m.sql").write_text("SELECT 1;")
    settings = configured(tmp_path, rules_from="z")
    up.up(settings, to="m")
    rollback.rollback(settings, rollback.plan(settings), reason="try")
    assert versions(db) == ["b", "c"]


def test_two_heads_in_the_database_are_merged_by_what_is_pending(tmp_path, settings, db):
    diamond(tmp_path)
    db.execute("CREATE TABLE alembic_version (version_num text PRIMARY KEY)")
    db.execute("INSERT INTO alembic_version VALUES ('b'), ('c')")
    assert up.up(configured(tmp_path, rules_from="z")).version == "z"


# What env.py said


def test_the_version_table_may_be_in_a_schema_of_its_own(tmp_path, settings, db):
    revisions.tables(tmp_path, 2)
    db.execute("CREATE SCHEMA audit")
    settings = configured(tmp_path, version_table="revisions", version_table_schema="audit")
    up.up(settings)
    assert db.execute("SELECT version_num FROM audit.revisions").fetchall() == [("0002",)]
    assert up.up(settings).applied == ()
    rollback.rollback(settings, rollback.plan(settings), reason="try")
    assert db.execute("SELECT version_num FROM audit.revisions").fetchall() == [("0001",)]


MODELS = """
from sqlalchemy import MetaData

class Base:
    metadata = MetaData(naming_convention={"uq": "only_one_%(table_name)s"})
"""


def test_the_naming_convention_of_the_projects_metadata_is_used(
    tmp_path, settings, db, cli, monkeypatch
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "models_with_convention.py").write_text(MODELS)
    revisions.write(
        tmp_path,
        "0001",
        """
        op.create_table("t", sa.Column("a", sa.Integer))
        op.create_unique_constraint(None, "t", ["a"])
        """,
    )
    settings = configured(tmp_path, metadata="models_with_convention:Base.metadata")
    assert "only_one_t" in cli("up", "--dry-run").stdout
    up.up(settings)
    assert exists(db, "only_one_t")


OPERATION = """
from alembic.operations import MigrateOperation, Operations

@Operations.register_operation("create_thing_of_the_test")
class CreateThing(MigrateOperation):
    @classmethod
    def create_thing_of_the_test(cls, operations):
        return operations.invoke(cls())

@Operations.implementation_for(CreateThing)
def create_thing(operations, operation):
    operations.execute("CREATE TABLE thing (a int)")
"""


def test_what_is_imported_can_register_operations(tmp_path, settings, db, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "operations_of_the_test.py").write_text(OPERATION)
    revisions.write(tmp_path, "0001", "op.create_thing_of_the_test()")
    up.up(configured(tmp_path, **{"import": ["operations_of_the_test"]}))
    assert exists(db, "thing")


@pytest.mark.parametrize(
    ("statement", "kept"),
    [("SELECT format('%I', 'a')", "a"), ("SELECT '100%%'", "100%"), ("SELECT '5%s'", "5%s")],
)
def test_percent_signs_of_a_history_written_for_asyncpg_are_taken_as_they_are(
    tmp_path, settings, db, statement, kept
):
    revisions.write(
        tmp_path,
        "0001",
        f"""
        kept = op.get_bind().exec_driver_sql({statement!r}).scalar()
        op.execute(sa.text("CREATE TABLE kept AS SELECT CAST(:kept AS text)").bindparams(kept=kept))
        """,
    )
    up.up(settings)
    assert db.execute("SELECT * FROM kept").fetchone() == (kept,)


@pytest.mark.parametrize(
    ("settings_file", "said"),
    [
        (
            {"metadata": "not_there:Base.metadata"},
            "metadata names not_there, which does not import",
        ),
        ({"metadata": "json:JSONDecoder"}, "leads to a type"),
        ({"metadata": "json:nothing"}, "leads to nothing"),
        ({"import": ["not_there"]}, "import names not_there, which does not import"),
    ],
)
def test_a_setting_that_leads_nowhere_is_named_before_anything_is_applied(
    tmp_path, settings, db, settings_file, said
):
    revisions.tables(tmp_path, 1)
    with pytest.raises(MigratorError, match=said):
        up.up(configured(tmp_path, **settings_file))
    assert not exists(db, "t1")
