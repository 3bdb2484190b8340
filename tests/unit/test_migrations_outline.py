from __future__ import annotations

import subprocess
import sys

import pytest

from migrator.migrations import history, outline
from migrator.settings import Settings
from tests import revisions


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path)


def rewrite(path, old, new):
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))


def test_the_outline_says_what_the_history_says(tmp_path, settings):
    revisions.write(tmp_path, "a")
    revisions.write(tmp_path, "b", revises="a")
    revisions.write(tmp_path, "c", revises="a")
    revisions.write(tmp_path, "d", revises=("b", "c"))
    read, loaded = outline.read(settings), history.read(settings)
    assert set(read.ids) == set(loaded.ids)
    assert all(read.ancestry(name) == loaded.ancestry(name) for name in loaded.ids)
    assert read.ancestry("b", "c") == loaded.ancestry("b", "c") == {"a", "b", "c"}


@pytest.mark.parametrize(
    "written",
    [
        "down_revision: Union[str, Sequence[str], None] = '0001'  # after it",
        "down_revision = (\n    '0001'\n)",
        "down_revision = ('0001',)",
        "down_revision = '0001'\ndepends_on = None",
        "text = '''\ndown_revision = 'other'\n'''\ndown_revision = '0001'",
    ],
)
def test_whatever_way_it_is_written_it_is_read(tmp_path, settings, written):
    revisions.write(tmp_path, "0001")
    path = revisions.write(tmp_path, "0002", revises="0001")
    rewrite(path, "down_revision = '0001'", written)
    assert outline.read(settings).ancestry("0002") == {"0001", "0002"}


@pytest.mark.parametrize(
    "written",
    [
        "down_revision = before()",
        "down_revision = '0001'\ndepends_on = 'other'",
        "down_revision = 'not_there'",
        "down_revision = None",
        "down_revision = '0002'",
        "down_revision = (",
        "",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_history(tmp_path, settings, written):
    revisions.write(tmp_path, "0001")
    path = revisions.write(tmp_path, "0002", revises="0001")
    rewrite(path, "down_revision = '0001'", written)
    assert outline.read(settings) is None


def test_an_id_that_is_there_twice_is_left_to_the_history(tmp_path, settings):
    path = revisions.write(tmp_path, "0001")
    (path.parent / "copy.py").write_text(path.read_text())
    assert outline.read(settings) is None


def test_a_circle_beside_the_head_is_left_to_the_history(tmp_path, settings):
    revisions.write(tmp_path, "a", revises="c")
    revisions.write(tmp_path, "b", revises="a")
    revisions.write(tmp_path, "c", revises="b")
    revisions.write(tmp_path, "d")
    assert outline.read(settings) is None


def test_an_empty_folder_has_an_empty_outline(tmp_path, settings):
    (tmp_path / "migrations").mkdir()
    assert outline.read(settings).ids == ()


def test_files_below_are_read_where_that_is_asked_for(tmp_path):
    path = revisions.write(tmp_path, "0001")
    below = path.parent / "2026"
    below.mkdir()
    path.rename(below / path.name)
    assert outline.read(Settings(root=tmp_path)).ids == ()
    settings = Settings(root=tmp_path, migrations={"recursive": True})
    assert outline.read(settings).ids == ("0001",)


def test_the_modules_that_find_nothing_pending_load_no_alembic():
    code = (
        "import migrator.migrations.up, sys; "
        "sys.exit(any(m in sys.modules for m in ('alembic', 'sqlalchemy', 'pglast', 'structlog', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
