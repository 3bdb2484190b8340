"""`migrator lint` on real projects and a real database."""

import json

import pytest

from tests import projects, revisions

INDEX = 'op.create_index("i", "big", ["a"])'
TABLES = """
CREATE TABLE big (a bigint, b varchar(10));
INSERT INTO big SELECT n, 'x' FROM generate_series(1, 20000) n;
CREATE TABLE small (a bigint);
INSERT INTO small VALUES (1);
ANALYZE;
"""


@pytest.fixture
def root(tmp_path, make_settings, db):
    make_settings(tmp_path)
    db.execute(TABLES)
    return tmp_path


@pytest.fixture
def lint(cli):
    def run(*args, stdin="", code=None):
        result = cli("lint", "--format", "json", *args, stdin=stdin)
        if code is not None:
            assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return run


def said(document):
    return [(each["rule"], each["severity"]) for each in document["findings"]]


@pytest.mark.parametrize(("table", "severity"), [("big", "error"), ("small", "warning")])
def test_a_finding_weighs_what_the_table_does_in_the_database(root, lint, table, severity):
    revisions.write(root, "0001", f'op.create_index("i", "{table}", ["a"])')
    document = lint(code=3 if severity == "error" else 0)
    assert said(document) == [("require-concurrent-index-creation", severity)]
    assert f"({table} has about " in document["findings"][0]["message"]


def test_a_table_that_was_never_analysed_is_weighed_by_its_pages(root, lint, db):
    db.execute("CREATE TABLE fresh AS SELECT n AS a FROM generate_series(1, 100000) n")
    document = lint("-", stdin="CREATE INDEX i ON fresh (a);", code=3)
    assert "fresh has about " in document["findings"][0]["message"]


def test_a_partitioned_table_weighs_what_its_partitions_do(root, lint, db):
    db.execute("CREATE TABLE parted (a bigint) PARTITION BY RANGE (a)")
    db.execute("CREATE TABLE parted_1 PARTITION OF parted DEFAULT")
    db.execute("INSERT INTO parted SELECT generate_series(1, 20000)")
    db.execute("ANALYZE parted_1")
    document = lint("-", stdin="ALTER TABLE parted ALTER COLUMN a SET NOT NULL;", code=3)
    messages = [each["message"] for each in document["findings"]]
    assert any("parted has about 20,000 rows" in message for message in messages)


def test_widening_a_column_is_known_from_the_database(root, lint):
    sql = "ALTER TABLE big ALTER COLUMN b TYPE varchar({});"
    assert "changing-column-type" not in dict(said(lint("-", stdin=sql.format(20))))
    found = dict(said(lint("-", stdin=sql.format(5))))
    assert "error" in (found.get("changing-column-type"), found.get("table-rewritten"))


def test_only_what_is_pending_is_linted_and_rev_names_any(root, lint, cli):
    revisions.write(root, "0001", INDEX)
    assert cli("up").exit_code == 0
    assert lint(code=0)["linted"] == []
    assert lint("0001", code=3)["linted"] == ["migrations/versions/0001_x.py"]
    assert lint("migrations/versions/0001_x.py", code=3)["errors"] == 1
    assert "nothing to lint" in cli("lint").stdout


@pytest.mark.parametrize("where", [(), ("--no-database",)])
def test_what_rules_from_exempts_is_linted_only_where_it_is_named(root, lint, monkeypatch, where):
    revisions.write(root, "0001", INDEX, head="", rollback=None)
    revisions.write(root, "0002", 'op.create_index("j", "big", ["b"])', revises="0001")
    assert len(lint("--no-database", code=3)["linted"]) == 2
    monkeypatch.setenv("MIGRATOR_MIGRATIONS__RULES_FROM", "0002")
    assert lint(*where, code=3)["linted"] == ["migrations/versions/0002_x.py"]
    assert lint("0001", *where, code=3)["linted"] == ["migrations/versions/0001_x.py"]


def test_no_database_lints_every_revision(root, lint, cli):
    revisions.write(root, "0001", INDEX)
    assert cli("up").exit_code == 0
    document = lint("--no-database", code=3)
    assert said(document) == [("require-concurrent-index-creation", "error")]
    assert "rows" not in document["findings"][0]["message"]


def test_an_error_exits_with_3_but_not_under_exit_zero(root, cli):
    revisions.write(root, "0001", INDEX)
    assert cli("lint").exit_code == 3
    assert cli("lint", "--exit-zero").exit_code == 0


def test_the_text_names_file_and_line_and_shows_the_rewrite(root, cli):
    path = revisions.write(root, "0001", f"pass\n{INDEX}")
    line = path.read_text().splitlines().index(f"    {INDEX}") + 1
    output = cli("lint").stdout
    assert (
        f"migrations/versions/0001_x.py:{line}: error require-concurrent-index-creation" in output
    )
    assert "    CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON big (a);" in output
    assert output.endswith("1 error, 0 warnings, 0 notices in 1 file\n")


@pytest.mark.parametrize(
    ("form", "start"), [("github", "::error file=migrations/"), ("sarif", "{"), ("text", "migra")]
)
def test_every_format_is_written(root, cli, form, start):
    revisions.write(root, "0001", INDEX)
    assert cli("lint", "--format", form).stdout.startswith(start)


def test_a_revision_that_asks_the_database_is_known_when_it_is_captured(root, lint, db):
    upgrade = """
        rows = op.get_bind().execute(sa.text("SELECT count(*) FROM big WHERE a > :n"), {"n": 5})
        assert rows.scalar() == 19995
        op.create_index("i", "big", ["a"])
    """
    path = revisions.write(root, "0001", upgrade)
    assert "sql-not-known" in dict(said(lint()))
    document = lint("--capture", code=3)
    assert said(document) == [("require-concurrent-index-creation", "error")]
    line = path.read_text().splitlines().index('    op.create_index("i", "big", ["a"])') + 1
    assert document["findings"][0]["line"] == line
    assert db.execute("SELECT to_regclass('i'), to_regclass('alembic_version')").fetchone() == (
        None,
        None,
    )


def test_capture_says_why_a_revision_fails(root, lint):
    revisions.write(root, "0001", 'op.get_bind().execute(sa.text("SELECT 1 / 0")).scalar()')
    (finding,) = lint("--capture")["findings"]
    assert "division by zero" in finding["message"]


def test_an_sql_file_needs_no_project(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sql").write_text("DROP TABLE t;")
    result = cli("lint", "x.sql")
    assert result.exit_code == 3
    assert "x.sql:1: error ban-drop-table" in result.stdout


@pytest.mark.parametrize("target", ["missing.sql", "0009"])
def test_what_is_not_there_is_named(root, cli, target):
    revisions.write(root, "0001")
    result = cli("lint", target)
    assert result.exit_code == 2
    assert target in result.stderr


def test_a_file_that_is_no_utf8_is_named(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sql").write_bytes(b"SELECT '\xff';")
    result = cli("lint", "x.sql")
    assert result.exit_code == 1
    assert "x.sql is no UTF-8" in result.stderr


def test_a_broken_projection_is_a_note(root, lint):
    revisions.write(root, "0001")
    projects.write(root, "this is no python")
    assert "the projections' tables are not known" in lint()["notes"][0]
