from __future__ import annotations

import json

import pytest

from tests import revisions


@pytest.fixture
def root(tmp_path, make_settings):
    make_settings(tmp_path)
    return tmp_path


def test_new_works_in_an_empty_project_and_says_what_to_write(root, cli):
    result = cli("new", "Create the orders")
    assert result.exit_code == 0
    assert result.stdout.startswith("revision 0001, which revises nothing: it is the first\n")
    assert (root / "migrations/versions/0001_create_the_orders.py").is_file()
    assert (root / "migrations/rollback/0001.sql").is_file()


def test_new_goes_on_from_the_head_with_the_phase_asked_for(root, cli):
    revisions.tables(root, 3)
    document = json.loads(cli("--json", "new", "Drop t1", "--phase", "contract").stdout)
    assert (document["revision"], document["revises"]) == ("0004", "0003")
    source = (root / "migrations/versions/0004_drop_t1.py").read_text()
    assert 'phase = "contract"' in source
    assert 'down_revision = "0003"' in source


def test_a_dry_run_prints_both_files_and_writes_none(root, cli):
    result = cli("new", "Create the orders", "--dry-run")
    assert "down_revision = None" in result.stdout
    assert "-- Undo 0001: Create the orders" in result.stdout
    assert not (root / "migrations").exists()


def test_up_refuses_a_draft_until_its_rollback_script_holds_sql(root, cli):
    cli("new", "Create t")
    refused = cli("up")
    assert refused.exit_code == 3
    assert "0001: rollback/0001.sql holds no statement yet" in refused.stderr


def test_a_draft_that_was_filled_in_is_applied(root, cli, db):
    cli("new", "Create t")
    path = root / "migrations/versions/0001_create_t.py"
    body = 'raise NotImplementedError("write what 0001 changes")'
    path.write_text(path.read_text().replace(body, 'op.execute("CREATE TABLE t (a int)")'))
    (root / "migrations/rollback/0001.sql").write_text("DROP TABLE t;")
    assert cli("up").exit_code == 0
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_up_names_the_line_of_a_draft_that_was_not_filled_in(root, cli):
    cli("new", "Create t")
    (root / "migrations/rollback/0001.sql").write_text("DROP TABLE t;")
    result = cli("up")
    assert result.exit_code == 1
    assert "NotImplementedError: write what 0001 changes" in result.stderr


def test_new_needs_no_database(root, cli, monkeypatch):
    monkeypatch.delenv("MIGRATOR_DATABASE_URL")
    assert cli("new", "Create t").exit_code == 0


def test_two_heads_are_refused(root, cli):
    revisions.write(root, "0001")
    revisions.write(root, "0002")
    assert cli("new", "more").exit_code == 3
