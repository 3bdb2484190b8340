from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations import history
from migrator.migrations.irreversible import Irreversible
from migrator.migrations.normalise import revision_hash
from migrator.settings import Settings
from tests import revisions


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path)


def test_revisions_come_oldest_first_whatever_their_files_are_called(tmp_path, settings):
    revisions.write(tmp_path, "c")
    revisions.write(tmp_path, "a", revises="c")
    revisions.write(tmp_path, "b", revises="a")
    assert [r.id for r in history.read(settings).revisions] == ["c", "a", "b"]


def test_a_revision_holds_what_its_file_declares(tmp_path, settings):
    path = revisions.write(
        tmp_path, "0001", head='phase = "contract"', message="Drop it", rollback="SELECT 2;"
    )
    (found,) = history.read(settings).revisions
    assert (found.message, found.phase, found.revises) == ("Drop it", "contract", None)
    assert (found.rollback_script, found.irreversible) == ("SELECT 2;", None)
    assert found.source_hash == revision_hash(ast.parse(path.read_text()))
    assert (found.transactional, found.path) == (True, path)


def test_irreversible_is_read_with_its_reason(tmp_path, settings):
    revisions.write(
        tmp_path,
        "0001",
        head='phase = "contract"\nrollback = irreversible("the rows are gone")',
        rollback=None,
    )
    (found,) = history.read(settings).revisions
    assert (found.irreversible, found.rollback_script) == ("the rows are gone", None)


def test_irreversible_without_a_reason_is_an_error():
    with pytest.raises(ValueError, match="needs the reason"):
        Irreversible("  ")


def test_a_revision_with_an_autocommit_block_is_not_transactional(tmp_path, settings):
    revisions.indexed(tmp_path)
    assert [r.transactional for r in history.read(settings).revisions] == [True, False]


def test_an_empty_folder_holds_no_revision(tmp_path, settings):
    (tmp_path / "migrations").mkdir()
    assert history.read(settings).revisions == ()


def test_env_py_is_not_executed(tmp_path, settings):
    revisions.write(tmp_path, "0001")
    (tmp_path / "migrations" / "env.py").write_text("raise SystemExit('env.py ran')")
    assert len(history.read(settings).revisions) == 1


def test_a_missing_folder_says_how_to_start_one(settings):
    with pytest.raises(UsageError, match="there is no folder") as caught:
        history.read(settings)
    assert "migrator new" in caught.value.next_step


def test_two_heads_are_refused_with_both_files_and_the_way_out(tmp_path, settings):
    revisions.write(tmp_path, "0001")
    revisions.write(tmp_path, "0002", revises="0001")
    other = revisions.write(tmp_path, "0002b", revises="0001")
    with pytest.raises(Refused) as caught:
        history.read(settings)
    assert caught.value.exit_code == 3
    assert "0002_x.py" in caught.value.found
    assert "0002b_x.py" in caught.value.found
    assert caught.value.next_step == (
        f'let one revise the other: down_revision = "0002" in {other}'
    )


def test_a_down_revision_that_is_not_there_is_refused_by_name(tmp_path, settings):
    revisions.write(tmp_path, "0002", revises="0001")
    with pytest.raises(Refused, match="0001"):
        history.read(settings)


def test_an_id_that_is_there_twice_is_refused(tmp_path, settings):
    path = revisions.write(tmp_path, "0001")
    (path.parent / "copy.py").write_text(path.read_text())
    with pytest.raises(Refused, match="0001 is present more than once"):
        history.read(settings)


def test_a_circle_of_revisions_is_refused(tmp_path, settings):
    revisions.write(tmp_path, "0001", revises="0002")
    revisions.write(tmp_path, "0002", revises="0001")
    with pytest.raises(Refused, match="Cycle"):
        history.read(settings)


def test_a_file_without_a_revision_id_is_refused(tmp_path, settings):
    path = revisions.write(tmp_path, "0001")
    (path.parent / "notes.py").write_text("x = 1")
    with pytest.raises(Refused, match=r"notes\.py"):
        history.read(settings)


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("x = 1\ndef upgrade(:\n", 2, "SyntaxError"),
        ("\n\nimport not_there_at_all\n", 3, "ModuleNotFoundError"),
        ("from migrator import irreversible\nrollback = irreversible('')\n", 2, "needs the reason"),
    ],
)
def test_a_file_that_does_not_load_is_named_with_its_line(tmp_path, settings, source, line, said):
    path = revisions.write(tmp_path, "0001")
    path.write_text(source)
    with pytest.raises(MigratorError, match=said) as caught:
        history.read(settings)
    assert caught.value.found.startswith(f"{path}, line {line}: ")
    assert caught.value.exit_code == 1


def locations(tmp_path, *folders, **more):
    return Settings(root=tmp_path, migrations={"version_locations": folders, **more})


def test_several_folders_hold_one_history(tmp_path):
    moved = revisions.write(tmp_path, "0001")
    revisions.write(tmp_path, "0002", revises="0001")
    (tmp_path / "base").mkdir()
    moved.rename(tmp_path / "base" / moved.name)
    found = history.read(locations(tmp_path, "migrations/versions", "base"))
    assert found.ids == ("0001", "0002")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    revisions.write(tmp_path, "0001")
    with pytest.raises(UsageError, match=r"there is no folder .*/base"):
        history.read(locations(tmp_path, "migrations/versions", "base"))


def test_sub_folders_are_read_where_that_is_asked_for(tmp_path, settings):
    path = revisions.write(tmp_path, "0001")
    (path.parent / "2026").mkdir()
    path.rename(path.parent / "2026" / path.name)
    assert history.read(settings).ids == ()
    assert history.read(Settings(root=tmp_path, migrations={"recursive": True})).ids == ("0001",)


def diamond(tmp_path):
    revisions.write(tmp_path, "a")
    revisions.write(tmp_path, "b", revises="a", head="branch_labels = 'left'")
    revisions.write(tmp_path, "c", revises="a")
    revisions.write(tmp_path, "d", revises=("b", "c"))
    revisions.write(tmp_path, "e", revises="d")


def test_a_merged_history_is_in_an_order_that_can_be_applied(tmp_path, settings):
    diamond(tmp_path)
    found = history.read(settings)
    assert (found.ids[0], found.ids[-2:]) == ("a", ("d", "e"))
    assert found["d"].revises == "b, c"
    assert found.ancestry("d") == {"a", "b", "c", "d"}


def test_a_dependency_comes_before_what_depends_on_it(tmp_path, settings):
    diamond(tmp_path)
    path = tmp_path / "migrations/versions/b_x.py"
    path.write_text(path.read_text() + "\ndepends_on = 'c'\n")
    found = history.read(settings)
    assert found.ids.index("c") < found.ids.index("b")
    assert found.ancestry("b") == {"a", "b", "c"}


def test_what_rules_from_stands_on_is_exempt(tmp_path):
    diamond(tmp_path)
    found = history.read(Settings(root=tmp_path, migrations={"rules_from": "d"}))
    assert [r.id for r in found.revisions if not r.exempt] == ["d", "e"]


def test_a_branch_beside_rules_from_is_held_to_the_rules(tmp_path):
    diamond(tmp_path)
    found = history.read(Settings(root=tmp_path, migrations={"rules_from": "b"}))
    assert {r.id for r in found.revisions if r.exempt} == {"a"}


def test_rules_from_must_name_a_revision(tmp_path):
    revisions.write(tmp_path, "0001")
    with pytest.raises(UsageError, match="rules_from names '0002', which no file has"):
        history.read(Settings(root=tmp_path, migrations={"rules_from": "0002"}))


def test_revisions_import_the_projects_own_modules(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_module_of_the_test.py").write_text("x = 1")
    revisions.write(tmp_path, "0001", head="import own_module_of_the_test")
    assert history.read(settings).ids == ("0001",)


def test_importing_migrator_loads_neither_sqlalchemy_nor_alembic():
    code = "import migrator, sys; sys.exit('sqlalchemy' in sys.modules or 'alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_that_migrator_does_not_have_is_an_attribute_error():
    import migrator

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = migrator.nothing
    assert "irreversible" in dir(migrator)
