"""Previews on a fake Neon and on a plain PostgreSQL: one suite for both."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from migrator.deploy import preview
from migrator.errors import MigratorError, Refused, UsageError
from migrator.migrations.up import up
from migrator.neon.branches import Branch
from migrator.settings import load
from tests import projects, revisions

DAY = timedelta(days=1)


@pytest.fixture(params=["neon", "postgresql"])
def provider(request) -> str:
    return request.param


@pytest.fixture
def shop(provider, request, tmp_path, database_url, monkeypatch):
    """A project at 0001, with 0002 pending; its database has one order."""
    fake = request.getfixturevalue("neon") if provider == "neon" else None
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    revisions.write(tmp_path, "0001", upgrade="op.execute('CREATE TABLE orders (id int)')")
    up(load())
    revisions.write(
        tmp_path, "0002", revises="0001", upgrade="op.execute('ALTER TABLE orders ADD note text')"
    )
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO orders VALUES (1)")
    yield fake
    with psycopg.connect(database_url.rpartition("/")[0] + "/postgres", autocommit=True) as conn:
        found = conn.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s",
            (database_url.rpartition("/")[2] + "\\_preview\\_%",),
        ).fetchall()
        for (name,) in found:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def rows(url: str, query: str) -> list:
    with psycopg.connect(url) as conn:
        return conn.execute(query).fetchall()


def test_a_preview_has_the_rows_and_what_is_pending(shop, database_url):
    made = preview.create(load(), name="pr-1", ttl=DAY)
    assert made.is_new
    assert made.applied == ("0002",)
    assert rows(made.url.get_secret_value(), "SELECT id, note FROM orders") == [(1, None)]
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [("0001",)]
    assert made.branch.expires_at > datetime.now(UTC)


def test_a_second_push_begins_as_the_database_is_now(shop, database_url):
    first = preview.create(load(), name="pr-1", ttl=DAY)
    with psycopg.connect(first.url.get_secret_value(), autocommit=True) as conn:
        conn.execute("INSERT INTO orders VALUES (99)")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO orders VALUES (2)")
    second = preview.create(load(), name="pr-1", ttl=2 * DAY)
    assert not second.is_new
    assert second.applied == ("0002",)
    url = second.url.get_secret_value()
    assert rows(url, "SELECT id FROM orders ORDER BY 1") == [(1,), (2,)]
    assert len(preview.every(load())) == 1
    assert second.branch.expires_at > datetime.now(UTC) + DAY


def test_a_failing_revision_leaves_the_preview_and_the_database_as_it_was(
    shop, database_url, tmp_path
):
    revisions.write(
        tmp_path, "0003", revises="0002", upgrade="op.execute('ALTER TABLE nowhere ADD x int')"
    )
    with pytest.raises(MigratorError, match="0003"):
        preview.create(load(), name="pr-1")
    assert [each.name for each in preview.every(load())] == ["pr-1"]
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [("0001",)]


def test_deleting_a_preview_that_is_not_there_is_no_error(shop):
    preview.create(load(), name="pr-1")
    assert preview.delete(load(), "pr-1")
    assert not preview.delete(load(), "pr-1")
    assert preview.every(load()) == []


def test_a_changed_projection_is_rebuilt_in_the_preview_alone(project, produce, database_url):
    produce(project.topic, [projects.placed(1), projects.placed(2)])
    made = preview.create(load(), name="pr-1")
    assert made.rebuilt == ("orders",)
    assert rows(made.url.get_secret_value(), "SELECT count(*) FROM orders") == [(2,)]
    assert rows(database_url, "SELECT to_regclass('orders')") == [(None,)]
    preview.delete(load(), "pr-1")


@pytest.mark.parametrize("provider", ["postgresql"])
def test_the_preview_of_another_repository_is_left_alone(shop, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "shop/api")
    preview.create(load(), name="pr-1")
    monkeypatch.setenv("GITHUB_REPOSITORY", "shop/web")
    with pytest.raises(Refused, match="the preview pr-1 is of shop/api"):
        preview.create(load(), name="pr-1")


@pytest.mark.parametrize("provider", ["neon"])
def test_a_url_that_leads_to_another_branch_is_refused_before_a_single_write(shop, database_url):
    """As an action once handed out the URL of main for that of a preview."""
    shop.project.points_elsewhere = shop.project.named("main").id
    with pytest.raises(Refused, match="nothing was written"):
        preview.create(load(), name="pr-1")
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [("0001",)]


@pytest.mark.parametrize("provider", ["neon"])
def test_without_a_url_the_parent_is_the_default_branch(shop, monkeypatch):
    monkeypatch.delenv("MIGRATOR_DATABASE_URL")
    made = preview.create(load(), name="pr-1")
    assert made.applied == ("0002",)
    assert shop.project.of(made.branch.id).parent_id == shop.project.named("main").id


@pytest.mark.parametrize("provider", ["neon"])
def test_a_sweep_never_touches_what_matters_and_goes_on(shop):
    """Even where somebody has put a preview's annotation on it."""
    for name in ("pr-1", "pr-2", "pr-3", "pr-4"):
        preview.create(load(), name=name, ttl=DAY)
    project = shop.project
    whose = {**project.named("preview/pr-1").annotation, "migrator/name": "odd"}
    project.named("main").annotation = whose
    project.named("preview/pr-2").protected = True
    project.named("preview/pr-3").expires_at = None
    project.add("below", parent="preview/pr-3")
    project.add("somebody's")
    chosen = preview.to_sweep(preview.every(load()), all_of_them=True)
    swept = preview.sweep(load(), chosen)
    assert swept.deleted == ("pr-1", "pr-4")
    assert {name: why.rpartition(": ")[2] for name, why in swept.failed} == {
        "odd": "it is the default branch",
        "pr-2": "it is protected",
        "pr-3": "it has children (below)",
    }
    assert "somebody's" in project.names()


def branch(name: str, *, made: timedelta, ends: timedelta | None) -> Branch:
    now = datetime.now(UTC)
    expires_at = now + ends if ends is not None else None
    return Branch("preview", name, name, name, now - made, expires_at, {})


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, ["over"]),
        ({"older_than": 5 * DAY}, ["over", "old"]),
        ({"older_than": 5 * DAY, "keep": ("old",)}, ["over"]),
        ({"all_of_them": True, "keep": ("new",)}, ["over", "old", "lasting"]),
        ({"keep": ("over",)}, []),
    ],
)
def test_a_sweep_takes_those_whose_time_is_up_and_what_else_is_asked_for(asked, chosen):
    found = [
        branch("over", made=2 * DAY, ends=-DAY),
        branch("old", made=9 * DAY, ends=DAY),
        branch("new", made=DAY, ends=DAY),
        branch("lasting", made=DAY, ends=None),
    ]
    assert [each.name for each in preview.to_sweep(found, **asked)] == chosen


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"GITHUB_REF": "refs/pull/123/merge", "GITHUB_HEAD_REF": "feature/x"}, "pr-123"),
        ({"GITHUB_REF": "refs/heads/main", "GITHUB_REF_NAME": "main"}, "main"),
        ({"GITHUB_REF_NAME": "feature/Add Notes"}, "feature-add-notes-cf925908"),
        ({"GITHUB_REF_NAME": "x" * 60}, "x" * 31 + "-42f2d973"),
        ({"GITHUB_REF_NAME": "#7"}, "7-d5ce3ebf"),
    ],
)
def test_the_name_of_a_preview_comes_from_the_pull_request(monkeypatch, environment, name):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert preview.default_name() == name
    assert preview.branches.NAME.fullmatch(name)


def test_outside_a_pull_request_a_name_is_asked_for(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="which pull request"):
        preview.default_name()


# The commands


def test_on_github_the_url_is_masked_and_an_output_of_the_step(shop, cli, monkeypatch, tmp_path):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    monkeypatch.setenv("GITHUB_REF", "refs/pull/7/merge")
    made = cli("preview", "create")
    assert made.exit_code == 0, made.output
    url = made.stdout.strip()
    assert url.startswith("postgresql://")
    assert f"::add-mask::{url}\n" in made.stderr
    if shop:
        password = url.partition("//")[2].partition("@")[0].partition(":")[2]
        assert f"::add-mask::{password}\n" in made.stderr
        assert made.stderr.index("::add-mask::") < len(made.stderr)
    assert f"database-url={url}\n" in outputs.read_text()
    assert "name=pr-7\n" in outputs.read_text()
    assert url not in made.stderr.replace(f"::add-mask::{url}", "")
    assert cli("preview", "delete").stdout == "deleted: pr-7\n"
    assert cli("preview", "delete").stdout == "There is no preview pr-7.\n"


@pytest.mark.parametrize("provider", ["neon"])
def test_the_command_line_says_what_it_would_do_and_what_could_not_be_deleted(shop, cli):
    assert (
        "would be made; nothing" in cli("preview", "create", "--name", "pr-1", "--dry-run").stdout
    )
    assert cli("preview", "sweep").stdout == "No preview is to be deleted.\n"
    made = json.loads(cli("--json", "preview", "create", "--name", "pr-1").stdout)
    assert made["applied"] == ["0002"]
    assert "anew" in cli("preview", "create", "--name", "pr-1", "--dry-run").stdout
    assert cli("preview", "delete", "--name", "pr-1", "--dry-run").stdout.startswith("would be")
    shop.project.named("preview/pr-1").protected = True
    assert cli("preview", "sweep", "--all", "--dry-run").stdout == "would be deleted: pr-1\n"
    swept = cli("preview", "sweep", "--all")
    assert swept.exit_code == 1
    assert "not deleted: pr-1: branch preview/pr-1" in swept.stdout
