from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.errors import Refused, UsageError
from migrator.migrations import check, history, scaffold
from migrator.settings import Settings
from tests import revisions


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path)


def test_the_first_revision_is_0001_and_revises_nothing(settings):
    drafted = scaffold.draft(settings, "Create the orders")
    assert (drafted.id, drafted.revises) == ("0001", None)
    assert drafted.path == settings.migrations_dir / "versions" / "0001_create_the_orders.py"
    assert drafted.rollback_path == settings.migrations_dir / "rollback" / "0001.sql"


def test_numbers_go_on_counting_from_the_highest(tmp_path, settings):
    revisions.tables(tmp_path, 3)
    drafted = scaffold.draft(settings, "more")
    assert (drafted.id, drafted.revises) == ("0004", "0003")


def test_hex_ids_stay_hex_and_unique(tmp_path, settings):
    revisions.write(tmp_path, "ae1027a6acf1")
    drafted = scaffold.draft(settings, "more")
    assert (len(drafted.id), drafted.revises) == (12, "ae1027a6acf1")
    assert drafted.id != "ae1027a6acf1"
    int(drafted.id, 16)


def test_what_is_written_loads_and_up_refuses_it_until_it_holds_sql(settings):
    scaffold.write(scaffold.draft(settings, "Add a note", phase="contract"))
    files = history.read(settings)
    (found,) = files.revisions
    assert (found.message, found.phase) == ("Add a note", "contract")
    assert list(check.problems(files, found)) == ["rollback/0001.sql holds no statement yet"]


def test_a_draft_writes_nothing(settings):
    scaffold.draft(settings, "Add a note")
    assert not settings.migrations_dir.exists()


def test_an_empty_message_is_a_usage_error(settings):
    with pytest.raises(UsageError, match="empty"):
        scaffold.draft(settings, " \n")


def test_two_heads_are_refused(tmp_path, settings):
    revisions.write(tmp_path, "0001")
    revisions.write(tmp_path, "0002")
    with pytest.raises(Refused, match="2 heads"):
        scaffold.draft(settings, "more")


def test_a_file_that_exists_is_never_overwritten(settings):
    drafted = scaffold.draft(settings, "Add a note")
    drafted.rollback_path.parent.mkdir(parents=True)
    drafted.rollback_path.write_text("DROP TABLE precious;")
    with pytest.raises(Refused, match="exists already"):
        scaffold.write(drafted)
    assert drafted.rollback_path.read_text() == "DROP TABLE precious;"
    assert not drafted.path.exists()


def test_control_characters_are_left_out_of_the_message(settings):
    assert '"""Add a note"""' in scaffold.draft(settings, "Add\x00 a\n\x1b note").source


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip))
def test_any_message_makes_a_loadable_file_with_a_safe_name(message):
    settings = Settings(root="/nowhere")
    drafted = scaffold.draft(settings, message)
    said = ast.get_docstring(ast.parse(drafted.source), clean=False)
    assert said == " ".join(message.split())
    assert drafted.path.name.isascii()
    assert len(drafted.path.name) <= 4 + 1 + 40 + 3
