from __future__ import annotations

import pytest

from migrator.errors import Refused
from migrator.migrations import check, history, render
from migrator.settings import Settings
from tests import revisions

BLOCK = "with op.get_context().autocommit_block():\n"


@pytest.fixture
def problems(tmp_path):
    def found() -> list[str]:
        files = history.read(Settings(root=tmp_path))
        return [p for r in files.revisions for p in check.problems(files, r)]

    return found


def test_a_complete_revision_has_no_problem(tmp_path, problems):
    revisions.tables(tmp_path)
    revisions.indexed(tmp_path / "other")
    assert problems() == []


def test_a_complete_revision_outside_a_transaction_has_no_problem(tmp_path, problems):
    revisions.indexed(tmp_path)
    assert problems() == []


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("", "0001_x.py has no phase"),
        ('phase = "pre"', "has phase 'pre'"),
        (
            'phase = "expand"\nrollback = irreversible("gone")',
            "rollback/0001.sql exists, and 0001_x.py says irreversible",
        ),
    ],
)
def test_what_is_declared_wrongly_is_said(tmp_path, problems, head, said):
    revisions.write(tmp_path, "0001", head=head)
    (problem,) = problems()
    assert said in problem


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "rollback/0001.sql is missing"),
        ("-- to be written\n/* later */", "holds no statement yet"),
        (
            "DROP TABLE t;\nDORP TABLE u;",
            'does not parse: syntax error at or near "DORP" in line 2',
        ),
        (r"\i other.sql", "does not parse"),
        ("BEGIN; DROP TABLE t; COMMIT;", "holds BEGIN, COMMIT or ROLLBACK"),
        ("DROP INDEX CONCURRENTLY i;", "its first line must be -- migrator: autocommit"),
        (
            "-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS i; SELECT 1",
            "holds 2 statements",
        ),
        ("-- migrator: autocommit\nDROP INDEX CONCURRENTLY i", "cannot be repeated"),
        ("-- migrator: autocommit\nDROP TABLE IF EXISTS t", "cannot be repeated"),
    ],
)
def test_a_rollback_script_that_could_not_be_used_is_said(tmp_path, problems, script, said):
    revisions.write(tmp_path, "0001", rollback=script)
    (problem,) = problems()
    assert said in problem


@pytest.mark.parametrize(
    "script",
    [
        "DROP TABLE t;",
        "SAVEPOINT a; DROP TABLE t; RELEASE a;",
        "DO $$ BEGIN PERFORM 1; END $$;",
        "-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS i;",
    ],
)
def test_a_usable_rollback_script_is_taken(tmp_path, problems, script):
    revisions.write(tmp_path, "0001", rollback=script)
    assert problems() == []


@pytest.mark.parametrize(
    ("upgrade", "said"),
    [
        (revisions.CONCURRENTLY.format(kwargs="") * 2, "2 statements inside it and 0 outside"),
        (
            revisions.CONCURRENTLY.format(kwargs="") + 'op.execute("SELECT 1")',
            "1 statements inside it and 1 outside",
        ),
        (f"{BLOCK}    pass", "0 statements inside it"),
        (
            f'{BLOCK}    op.execute("CREATE INDEX CONCURRENTLY i ON t (a)")',
            "cannot be repeated",
        ),
        (f'{BLOCK}    op.execute("CREATE DATABASE d")', "cannot be repeated"),
        (f'{BLOCK}    op.execute("CREATE INDXE")', "syntax error"),
        (
            f"{BLOCK}    op.get_bind().execute(sa.text('SELECT 1')).scalar()",
            "cannot be rendered offline: AttributeError",
        ),
    ],
)
def test_outside_a_transaction_only_one_repeatable_statement_is_taken(
    tmp_path, problems, upgrade, said
):
    revisions.write(tmp_path, "0001", upgrade)
    (problem,) = problems()
    assert said in problem


@pytest.mark.parametrize(
    "statement",
    ["ALTER TYPE m ADD VALUE IF NOT EXISTS 'a'", "VACUUM t", "DROP INDEX CONCURRENTLY IF EXISTS i"],
)
def test_other_repeatable_statements_are_taken(tmp_path, problems, statement):
    revisions.write(tmp_path, "0001", f'{BLOCK}    op.execute("{statement}")')
    assert problems() == []


def test_an_id_longer_than_the_version_column_is_said(tmp_path, problems):
    revisions.write(tmp_path, "x" * 33)
    assert problems() == ["the id has 33 characters; the version table takes 32"]


def test_a_merge_is_said(tmp_path, problems):
    revisions.write(tmp_path, "a")
    revisions.write(tmp_path, "b", revises="a")
    revisions.write(tmp_path, "c", revises="a")
    path = revisions.write(tmp_path, "d", revises="b")
    path.write_text(path.read_text().replace("'b'", "('b', 'c')"))
    (problem,) = problems()
    assert problem.startswith("it merges b and c")


def test_a_revision_without_upgrade_is_said(tmp_path, problems):
    path = revisions.write(tmp_path, "0001")
    path.write_text(path.read_text().replace("def upgrade", "def other"))
    assert problems() == ["0001_x.py has no upgrade()"]


def test_all_offending_revisions_are_named_at_once(tmp_path):
    revisions.write(tmp_path, "0001", rollback=None)
    revisions.write(tmp_path, "0002", revises="0001", head="", rollback="-- nothing")
    files = history.read(Settings(root=tmp_path))
    with pytest.raises(Refused, match="nothing was applied: 3 things") as caught:
        check.refuse_incomplete(files, files.revisions)
    assert [p["revision"] for p in caught.value.data["problems"]] == ["0001", "0002", "0002"]
    assert caught.value.exit_code == 3


def test_the_sql_is_rendered_without_a_database(tmp_path):
    revisions.write(
        tmp_path,
        "0001",
        """
        op.add_column("t", sa.Column("a", sa.Text))
        op.execute("UPDATE t SET a = '50%' WHERE b = '12\\\\:30'")
        op.bulk_insert(sa.table("t", sa.column("a", sa.Text)), [{"a": "x"}])
        """,
    )
    files = history.read(Settings(root=tmp_path))
    text = render.render(files, files.revisions[0])
    assert "ALTER TABLE t ADD COLUMN a TEXT;" in text
    assert "UPDATE t SET a = '50%' WHERE b = '12:30';" in text
    assert "INSERT INTO t (a) VALUES ('x');" in text


def test_a_revision_that_reads_results_cannot_be_rendered(tmp_path):
    revisions.write(tmp_path, "0001", "op.get_bind().execute(sa.text('SELECT 1')).scalar()")
    files = history.read(Settings(root=tmp_path))
    with pytest.raises(render.NotRenderable, match="AttributeError"):
        render.render(files, files.revisions[0])
