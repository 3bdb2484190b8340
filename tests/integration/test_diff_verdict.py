"""What becomes of a build that differs from live: thresholds, reasons, and what a report says."""

from __future__ import annotations

import json

import pytest

from migrator.errors import Refused
from migrator.projections.checks import DIFF
from migrator.projections.cut_over import cut_over
from migrator.projections.rebuild import Options, rebuild
from tests.integration.test_diff import SHADOW, with_
from tests.projects import edit, placed, states

pytestmark = pytest.mark.usefixtures("in_process")


def verdict(report):
    (result,) = [r for r in report.projections[0].results if r.check == DIFF]
    return result


@pytest.fixture
def spoilt(project, produce, db):
    """Live has 100 orders, two of which somebody has changed by hand."""
    produce(project.topic, [placed(n, n) for n in range(100)])
    rebuild(project.settings, ["orders"])
    db.execute("UPDATE orders SET status = 'lost' WHERE order_id IN ('o1', 'o2')")
    return project


def test_a_rebuild_of_the_same_definition_that_differs_stops_and_names_the_keys(spoilt, db):
    with pytest.raises(Refused) as caught:
        rebuild(spoilt.settings, ["orders"])
    said = str(caught.value)
    assert "100 keys compared with build 1, 2 differ from live (2 changed)" in said
    assert "o1: status was 'lost' and is 'placed'" in said
    assert '--accept-diff "why"' in said
    assert states(db) == {1: "live", 2: "loaded"}
    assert db.execute("SELECT error FROM migrator.build WHERE build = 2").fetchone()[0]


def test_the_same_command_with_a_reason_goes_on_with_the_same_build(spoilt, db, cli):
    with pytest.raises(Refused):
        rebuild(spoilt.settings, ["orders"])
    result = cli("rebuild-projections", "--all", "--accept-diff", "a bad script ran on live")
    assert result.exit_code == 0, result.stderr
    assert "accepted: a bad script ran on live" in result.stdout
    assert states(db) == {1: "archived", 2: "live"}
    assert "replay" not in result.stderr
    (reason,) = db.execute(
        "SELECT reason FROM migrator.ledger WHERE act = 'cut-over' AND build = 2"
    ).fetchone()
    assert reason == "a bad script ran on live"
    (report, error) = db.execute(
        "SELECT report, error FROM migrator.build WHERE build = 2"
    ).fetchone()
    (kept,) = [each for each in report if each["check"] == DIFF]
    assert kept["numbers"]["accepted"] == "a bad script ran on live"
    assert error is None


def test_a_reason_that_was_given_before_the_cut_over_reaches_the_ledger_with_it(spoilt, db):
    options = Options(cut_over=False, accept_diff="repaired")
    rebuild(spoilt.settings, ["orders"], options)
    cut_over(spoilt.settings, [2])
    reasons = db.execute(
        "SELECT build, reason FROM migrator.ledger WHERE act = 'cut-over'"
    ).fetchall()
    assert reasons == [(1, None), (2, "repaired")]


def test_a_build_that_stopped_at_its_diff_is_compared_anew(spoilt, db):
    with pytest.raises(Refused):
        rebuild(spoilt.settings, ["orders"])
    db.execute("UPDATE orders SET status = 'placed'")
    rebuild(spoilt.settings, ["orders"])
    assert states(db) == {1: "archived", 2: "live"}


def test_a_limit_on_the_command_line_holds(spoilt, db, cli):
    assert cli("rebuild-projections", "--all", "--max-diff", "1.9%").exit_code == 3
    assert states(db)[2] == "loaded"
    assert cli("rebuild-projections", "--all", "--max-diff", "2%").exit_code == 0
    assert states(db)[2] == "live"


def test_a_changed_definition_may_differ_and_its_differences_are_told(project, produce, db, cli):
    produce(project.topic, [placed(n, n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    edit(
        project, "event.customer_id, event.total_cents", "event.customer_id, event.total_cents * 2"
    )
    result = cli("--json", "rebuild-projections", "--all")
    assert result.exit_code == 0, result.stderr
    (seen,) = [
        r for r in json.loads(result.stdout)["projections"][0]["results"] if r["check"] == DIFF
    ]
    assert seen["verdict"] == "passed"
    numbers = seen["numbers"]
    assert (numbers["differing"], numbers["changed_columns"]) == (9, {"total_cents": 9})
    assert numbers["first"][0] == {
        "kind": "changed",
        "key": {"order_id": "o1"},
        "columns": {"total_cents": ["1", "2"]},
    }


def test_a_limit_that_was_set_binds_a_changed_definition_too(project, produce, db):
    produce(project.topic, [placed(n, n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    edit(
        project, "event.customer_id, event.total_cents", "event.customer_id, event.total_cents * 2"
    )
    with pytest.raises(Refused, match="at most 0 may"):
        rebuild(with_(project.settings, max_diff="0"), ["orders"])


def test_where_nothing_can_be_compared_a_limit_that_was_set_is_not_met(project, produce, db):
    produce(project.topic, [placed(n, n) for n in range(10)])
    rebuild(with_(project.settings, max_diff="0"), ["orders"])
    produce(project.topic, [placed(n, n) for n in range(10)])
    bound = with_(project.settings, diff_max_touched=5)
    with pytest.raises(Refused, match="more than 5 keys"):
        rebuild(with_(bound, max_diff="0"), ["orders"])
    assert verdict(rebuild(bound, ["orders"], SHADOW)).verdict == "skipped"


def test_a_map_of_names_that_are_not_there_is_refused_before_anything_is_built(spoilt, db, cli):
    for wrong, said in (("stat=status", "unknown column of live 'stat'"), ("status=x", "'x'")):
        result = cli("rebuild-projections", "--all", "--map", wrong)
        assert result.exit_code == 2
        assert said in result.stderr
    assert states(db) == {1: "live"}


def test_a_renamed_column_is_compared_where_a_map_says_so(spoilt, db, cli):
    edit(spoilt, "status: Mapped[str]", "state: Mapped[str]")
    file = spoilt.root / "projections" / "orders.py"
    file.write_text(file.read_text().replace("self.status", "self.state"))
    result = cli("rebuild-projections", "--all", "--map", "status=state", "--max-diff", "1")
    assert result.exit_code == 3
    assert "o1: state was 'lost' and is 'placed'" in result.stderr
    assert "column status of live was compared with state" in result.stderr


@pytest.mark.parametrize("wrong", ["x", "-1", "101%%", "%"])
def test_a_limit_that_is_none_is_refused(tmp_path, make_settings, cli, wrong):
    make_settings(tmp_path)
    result = cli("rebuild-projections", "--all", "--max-diff", wrong)
    assert (result.exit_code, "expected a number of keys" in result.stderr) == (2, True)


def test_a_reason_must_be_one(project, cli):
    assert cli("rebuild-projections", "--all", "--accept-diff", " ").exit_code == 2


def test_the_report_is_written_whether_the_rebuild_stops_or_goes_on(spoilt, db, cli, tmp_path):
    db.execute("UPDATE orders SET status = '<script>alert(1)</script>' WHERE order_id = 'o1'")
    file = tmp_path / "report.html"
    assert cli("rebuild-projections", "--all", "--report", str(file)).exit_code == 3
    page = file.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    again = ("rebuild-projections", "--all", "--accept-diff", "spoilt", "--report", str(file))
    assert cli(*again).exit_code == 0
    assert "Accepted: spoilt" in file.read_text()
