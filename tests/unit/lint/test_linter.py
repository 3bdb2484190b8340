"""Own rules and squawk's together; severities; what cannot be analysed."""

from dataclasses import replace

import pytest

from migrator.migrations import history
from migrator.migrations.hazards import HAZARDS
from migrator.migrations.lint import linter, registry
from migrator.migrations.lint.model import Finding, Rule, Surroundings
from migrator.migrations.lint.source import from_revision, from_sql
from migrator.migrations.lint.squawk_rules import RULES
from migrator.migrations.lint.weight import weigh
from migrator.settings import Settings
from tests import revisions

MANAGED = Surroundings(lock_timeout_ms=500, statement_timeout_ms=60_000)
INDEX = "CREATE INDEX i ON t (a);"


def lint(sql, around=MANAGED, **changes):
    source = from_sql(sql, "x.sql")
    return linter.lint(replace(source, script=replace(source.script, **changes)), around).findings


@pytest.fixture
def own(monkeypatch):
    """The own rules are this one."""

    def only(rule, category="lock", line=1, table="t"):
        def check(_script, _around):
            yield Finding(rule, "error", category, "said", "safe", line, table)

        known = {rule: Rule(rule, category, "error", "Title", check)}
        monkeypatch.setattr(registry, "own", lambda: known)

    return only


def test_every_module_of_rules_is_found():
    assert set(registry.own()) == {rule.id for rule in registry.own().values()}


def test_a_hazard_that_an_own_rule_names_is_not_said_again_by_squawk(own):
    sql = "ALTER TABLE t ALTER COLUMN a TYPE bigint;"
    own("table-rewritten")
    assert [each.rule for each in lint(sql)] == ["table-rewritten"]
    assert "changing-column-type" in [each.rule for each in lint(f"SELECT 1;\n{sql}")]


@pytest.mark.parametrize(("rows", "severity"), [(9_999, "warning"), (10_000, "error")])
def test_a_lock_weighs_what_the_table_does(rows, severity):
    around = replace(MANAGED, rows={"t": rows}, sizes_bytes={"t": 5 * 1024 * 1024})
    (finding,) = lint(INDEX, around)
    assert finding.severity == severity
    assert f"(t has about {rows:,} rows, 5 MB)" in finding.message


def test_a_lock_on_a_table_of_unknown_size_keeps_the_rules_severity():
    (finding,) = lint(INDEX)
    assert finding.severity == "error"
    assert "rows" not in finding.message


@pytest.mark.parametrize("name", ["t", "public.t"])
def test_a_lock_on_a_table_that_the_script_creates_is_no_finding(name, own):
    own("some-rule", table=name)
    assert lint("CREATE TABLE t (a bigint);") == ()


def test_what_is_removed_is_an_error_before_the_roll_out_and_a_notice_after_it():
    drop = "ALTER TABLE t DROP COLUMN a;"
    assert [each.severity for each in lint(drop, phase="expand")] == ["error"]
    assert [each.severity for each in lint(drop, phase="contract")] == ["notice"]


def test_the_harm_of_style_does_not_grow_with_the_table():
    finding = Finding("r", "notice", "style", "m", "w", 1, "t")
    script = from_sql(INDEX, "x.sql").script
    assert weigh(finding, script, replace(MANAGED, rows={"t": 1e9})) == finding


def test_sql_that_does_not_parse_is_an_error_with_its_line():
    (finding,) = lint("SELECT 1;\nALTER TABEL t;")
    assert (finding.rule, finding.severity, finding.line) == ("syntax-error", "error", 2)
    assert 'syntax error at or near "TABEL"' in finding.message


def test_sql_of_a_revision_that_does_not_parse_is_an_error_at_its_line(tmp_path):
    path = revisions.write(tmp_path, "0001", "pass\nop.execute('ALTER TABEL t')")
    files = history.read(Settings(root=tmp_path))
    source = from_revision(files, files["0001"], "0001_x.py")
    (finding,) = linter.lint(source, MANAGED).findings
    line = path.read_text().splitlines().index("    op.execute('ALTER TABEL t')") + 1
    assert (finding.rule, source.place(finding.line)) == ("syntax-error", line)


def test_an_empty_file_has_no_finding():
    assert lint("") == ()
    assert lint("-- nothing yet\n") == ()


def test_a_revision_that_asks_the_database_is_not_analysable(tmp_path):
    revisions.write(tmp_path, "0001", 'op.get_bind().execute(sa.text("SELECT 1")).scalar()')
    files = history.read(Settings(root=tmp_path))
    source = from_revision(files, files["0001"], "0001_x.py")
    (finding,) = linter.lint(source, MANAGED).findings
    assert (finding.rule, finding.severity) == ("sql-not-known", "warning")
    assert "migrator lint --capture" in finding.rewrite


def test_a_revision_that_leaves_its_transaction_is_not_linted_as_one(tmp_path):
    revisions.indexed(tmp_path)
    files = history.read(Settings(root=tmp_path))
    source = from_revision(files, files["0002"], "0002_x.py")
    assert source.script.in_transaction is False
    assert len(source.script.statements) == 1
    assert [each.severity for each in linter.lint(source, MANAGED).findings] == []


def test_a_file_whose_first_line_says_autocommit_is_no_transaction():
    drop = "DROP INDEX CONCURRENTLY IF EXISTS i;"
    assert from_sql(f"-- migrator: autocommit\n{drop}", "x.sql").script.in_transaction is False
    assert from_sql(drop, "x.sql").script.in_transaction is True


def test_what_breaks_the_running_release_is_an_error_of_an_expand_revision_once():
    (finding,) = lint("ALTER TABLE t DROP COLUMN a;", phase="expand")
    assert (finding.rule, finding.severity) == ("drop-column", "error")
    assert "42703" in finding.message


def test_what_squawk_says_of_locks_stays_beside_the_phases():
    found = lint("ALTER TABLE t ALTER COLUMN a SET NOT NULL;", phase="expand")
    assert {"set-not-null", "adding-not-nullable-field"} <= {each.rule for each in found}


def test_sql_without_a_phase_is_not_held_to_one():
    assert "drop-column" not in {each.rule for each in lint("ALTER TABLE t DROP COLUMN a;")}


def test_no_two_rules_share_a_name():
    assert set(HAZARDS).isdisjoint({*registry.own(), *RULES})
