"""`migrator deploy`: one deployment that goes on wherever it was killed, and is undone as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from migrator.deploy import deployment as deployments
from migrator.deploy import pipeline, plan, undo
from migrator.deploy.steps import Options
from migrator.errors import Busy, MigratorError, Refused, UsageError
from migrator.migrations.up import up
from migrator.postgres import ledger, rehearsal
from migrator.postgres.connect import connect
from migrator.postgres.locks import deployer_lock
from migrator.projections.rebuild import rebuild
from migrator.settings import Settings
from tests.integration import test_kill
from tests.integration.test_kill import await_, frozen
from tests.projects import count, edit, placed, revision, states

# In the schema that `verify` leaves out: elsewhere the function would be drift.
FREEZE = test_kill.FREEZE.replace("hold_here()", "migrator.hold_here()")
QUICK = Options(skip_drift=True)
LOSES_NOTHING = "-- loses: nothing\nDROP TABLE notes;"


@pytest.fixture
def shop(project, produce):
    """One pending revision, one projection that was never built, ten events."""
    revision(project, "0001", None, "CREATE TABLE notes (id int PRIMARY KEY)", LOSES_NOTHING)
    produce(project.topic, [placed(n) for n in range(10)])
    return project


@pytest.fixture
def released(shop):
    """The shop is live, by hand; a revision and a changed projection are pending."""
    up(shop.settings)
    rebuild(shop.settings, ["orders"])
    revision(shop, "0002", "0001", "ALTER TABLE notes ADD COLUMN a text", _drops("a"))
    edit(shop, '"placed"', '"new"')
    return shop


@pytest.fixture
def notes(tmp_path, make_settings):
    """A project without projections: 0001 is applied, 0002 is pending."""
    project = SimpleNamespace(settings=make_settings(tmp_path), root=tmp_path)
    revision(project, "0001", None, "CREATE TABLE notes (id int PRIMARY KEY)", LOSES_NOTHING)
    up(project.settings)
    revision(project, "0002", "0001", "ALTER TABLE notes ADD COLUMN a text", _drops("a"))
    return project


def rehearsed(settings, outcome: str) -> None:
    with connect(settings, "test", autocommit=True) as conn:
        rehearsal.record(conn, plan.read(settings).hash, outcome, {}, 1)


def test_a_plan_without_a_rehearsal_that_passed_lately_is_refused(notes, cli, db):
    def deployed(age: str = "24h"):
        return cli("deploy", "--skip-drift", "--require-rehearsal", age)

    refused = deployed()
    assert refused.exit_code == Refused.exit_code
    assert "this plan was not rehearsed" in refused.stderr
    rehearsed(notes.settings, "failed")
    assert "rehearsal 1 of this plan failed 0.0 h ago" in deployed().stderr
    rehearsed(notes.settings, "passed")
    db.execute("UPDATE migrator.rehearsal SET rehearsed_at = now() - interval '25 h'")
    assert "rehearsal 2 of this plan passed 25.0 h ago" in deployed().stderr
    assert [entry.subject for entry in ledger.entries(db)] == ["0001"]
    done = deployed("2d")
    assert done.exit_code == 0
    assert "rehearsal 2 of this plan passed 25.0 h ago" in done.output
    assert [entry.subject for entry in ledger.entries(db)] == ["0001", "0002"]


def test_a_rehearsal_is_of_its_plan_alone(notes, cli, db):
    rehearsed(notes.settings, "passed")
    revision(notes, "0003", "0002", "ALTER TABLE notes ADD COLUMN b text", _drops("b"))
    refused = cli("deploy", "--skip-drift", "--require-rehearsal", "24h")
    assert "this plan was not rehearsed" in refused.stderr
    assert cli("deploy", "--require-rehearsal", "soon").exit_code == UsageError.exit_code


def _drops(column: str, loses: str = "nothing") -> str:
    return f"-- loses: {loses}\nALTER TABLE notes DROP COLUMN {column};"


def rows(db) -> list[tuple[int, str]]:
    return db.execute("SELECT deployment, state FROM migrator.deployment ORDER BY 1").fetchall()


def outcomes(db, number: int) -> dict[str, str]:
    found = db.execute(
        "SELECT step, outcome FROM migrator.deployment_step WHERE deployment = %s ORDER BY position",
        (number,),
    )
    return dict(found.fetchall())


def test_one_command_applies_rebuilds_and_cuts_over(shop, cli, db):
    done = cli("--json", "deploy")
    assert done.exit_code == 0, done.stderr
    assert count(db) == 10
    assert outcomes(db, 1) == {
        "rehearsal": "skipped",
        "lint": "done",
        "verify": "done",
        "checkpoint": "skipped",
        "up": "done",
        "rebuild": "done",
        "cut-over": "done",
        "health": "skipped",
    }
    document = json.loads(done.stdout)
    assert document["deployment"]["state"] == "done"
    entries = ledger.entries(db)
    assert [e.act for e in entries] == ["up", "cut-over"]
    assert {str(e.run) for e in entries} == {document["deployment"]["run"]}
    again = cli("deploy")
    assert (again.exit_code, "Nothing to deploy" in again.stdout) == (0, True)
    assert rows(db) == [(1, "done")]


def test_a_dry_run_shows_every_statement_and_why_each_projection_and_writes_nothing(shop, cli, db):
    shown = cli("deploy", "--dry-run")
    assert shown.exit_code == 0
    for said in (
        "CREATE TABLE notes",
        "projection orders: not built yet",
        "SET SCHEMA",
        "10 events",
    ):
        assert said in shown.stdout
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)
    document = json.loads(cli("--json", "deploy", "--dry-run").stdout)
    assert document["plan"]["hash"]
    assert document["rebuild"]["estimates"]


CHAOS = pytest.mark.chaos


@pytest.mark.parametrize(
    ("table", "when"),
    [
        pytest.param("deployment_step", "NEW.step = 'lint'", marks=CHAOS),
        pytest.param("deployment_step", "NEW.step = 'up' AND NEW.outcome IS NULL", marks=CHAOS),
        ("ledger", "NEW.act = 'up'"),
        pytest.param("deployment_step", "NEW.step = 'up' AND NEW.outcome = 'done'", marks=CHAOS),
        ("deployment_step", "NEW.step = 'rebuild' AND NEW.outcome = 'done'"),
        pytest.param("ledger", "NEW.act = 'cut-over'", marks=CHAOS),
        pytest.param(
            "deployment_step", "NEW.step = 'cut-over' AND NEW.outcome = 'done'", marks=CHAOS
        ),
        pytest.param("deployment", "NEW.state = 'done'", marks=CHAOS),
    ],
)
def test_killed_at_any_step_the_same_command_finishes_the_same_deployment(
    released, produce, db, table, when
):
    produce(released.topic, [placed(n) for n in range(10, 25)])
    db.execute(FREEZE.format(table=table, when=when))
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", "deploy"],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        await_(lambda: frozen(db), "the deployment at its step")
        running.send_signal(signal.SIGKILL)
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION migrator.hold_here() CASCADE")
    pipeline.deploy(released.settings)
    assert rows(db) == [(1, "done")]
    assert count(db) == 25
    run = db.execute("SELECT run FROM migrator.deployment WHERE deployment = 1").fetchone()[0]
    assert [e.act for e in ledger.entries(db) if e.run == run] == ["up", "cut-over"]


def test_until_stops_after_a_step_and_deploy_goes_on_from_there(released, cli, db):
    stopped = cli("deploy", "--until", "rebuild")
    assert (stopped.exit_code, "stops after rebuild" in stopped.stdout) == (0, True)
    assert (rows(db)[0], states(db)) == ((1, "stopped"), {1: "live", 2: "verified"})
    on = cli("deploy")
    assert "goes on at rebuild" in on.stdout
    assert (rows(db)[0], states(db)) == ((1, "done"), {1: "archived", 2: "live"})


def test_another_plan_is_refused_while_a_deployment_is_unfinished(released, cli, db):
    pipeline.deploy(released.settings, options=Options(until="up"))
    edit(released, '"new"', '"newer"')
    refused = cli("deploy")
    assert refused.exit_code == 3
    assert "deployment 1 is unfinished" in refused.stderr
    assert "projection orders has changed since" in refused.stderr
    assert "--abandon 1" in refused.stderr
    assert cli("deploy", "--abandon", "1").exit_code == 2
    assert cli("deploy", "--abandon", "1", "--reason", "r").exit_code == 0
    assert cli("deploy", "--abandon", "1", "--reason", "r").exit_code == 3
    assert cli("deploy").exit_code == 0
    assert rows(db) == [(1, "abandoned"), (2, "done")]
    assert db.execute("SELECT DISTINCT status FROM orders").fetchone() == ("newer",)


def test_a_deployment_that_has_changed_nothing_makes_way_for_another_plan(notes, db):
    pipeline.deploy(notes.settings, options=Options(until="lint"))
    revision(notes, "0002", "0001", "ALTER TABLE notes ADD COLUMN b text", _drops("b"))
    pipeline.deploy(notes.settings, options=QUICK)
    assert rows(db) == [(1, "failed"), (2, "done")]


def test_a_step_that_fails_is_kept_with_its_cause_and_done_again(released, db):
    edit(released, "return select(cls).where(cls.total_cents < 0)", "return select(cls)")
    with pytest.raises(MigratorError):
        pipeline.deploy(released.settings)
    found = deployments.newest(db)
    assert (found.state, found.step) == ("stopped", "rebuild")
    assert found.error.startswith("rebuild: ")
    assert outcomes(db, 1)["rebuild"] == "failed"
    with pytest.raises(MigratorError):
        pipeline.deploy(released.settings)
    assert deployments.steps(db, 1)["rebuild"].attempts == 2
    assert deployments.steps(db, 1)["up"].attempts == 1
    assert states(db)[1] == "live"


def test_drift_stops_it_before_anything_is_changed(notes, cli, db):
    db.execute("CREATE TABLE strange (id int)")
    with pytest.raises(Refused, match="do not belong together"):
        pipeline.deploy(notes.settings)
    assert (rows(db), len(ledger.entries(db))) == ([(1, "failed")], 1)
    assert cli("deploy", "--skip-drift").exit_code == 0


def test_what_lint_objects_to_stops_it_unless_it_is_allowed(notes, cli, db):
    revision(notes, "0003", "0002", "ALTER TABLE notes DROP COLUMN id", "SELECT 1")
    refused = cli("deploy", "--skip-drift")
    assert (refused.exit_code, "lint found 1 error" in refused.stderr) == (3, True)
    assert len(ledger.entries(db)) == 1
    allowed = ["--allow", "drop-column", "--reason", "nobody reads it"]
    done = cli("deploy", "--skip-drift", *allowed)
    assert done.exit_code == 0, done.stderr
    assert ledger.entries(db)[-1].allowed == ["drop-column"]


def test_up_and_deploy_take_the_same_lock(notes):
    database = notes.settings.database.model_copy(update={"deadline_s": 0.1})
    hasty = notes.settings.model_copy(update={"database": database})
    with deployer_lock(notes.settings, "deploy"), pytest.raises(Busy):
        pipeline.deploy(hasty)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"allow": frozenset(["archived-bild"])}, "did you mean archived-build"),
        ({"allow": frozenset(["archived-build"])}, "has no reason"),
        ({"until": "rebuilt"}, "did you mean rebuild"),
    ],
)
def test_what_is_asked_for_is_known_and_has_a_reason(asked, said):
    with pytest.raises(UsageError, match=said):
        pipeline.deploy(Settings(), options=Options(**asked))


# Contract


@pytest.fixture
def contracting(released):
    """Two builds, the expand revisions applied; a contract revision is pending."""
    up(released.settings)
    rebuild(released.settings, ["orders"])
    revision(released, "0003", "0002", "ALTER TABLE notes DROP COLUMN a", "SELECT 1")
    file = released.root / "migrations" / "versions" / "0003_r.py"
    file.write_text(file.read_text().replace("'expand'", "'contract'"))
    return released


def contract(project, **options):
    asked = Options(skip_drift=True, **options)
    return pipeline.deploy(project.settings, phase="contract", options=asked)


def test_contract_waits_until_no_archived_build_is_kept_to_go_back_to(contracting, cli, db):
    refused = cli("deploy", "--phase", "contract")
    assert refused.exit_code == 3
    assert "build 1 of orders: kept to go back to" in refused.stderr
    assert rows(db) == []
    command = ["prune", "--keep", "0", "--give-up-rollback", "--projection", "orders"]
    assert " ".join(command) in refused.stderr
    assert cli(*command).exit_code == 0
    assert states(db) == {1: "dropped", 2: "live"}
    done = cli("deploy", "--phase", "contract", "--skip-drift")
    assert done.exit_code == 0, done.stderr
    assert rows(db) == [(1, "done")]
    assert "rebuild" not in outcomes(db, 1)


def test_contract_with_an_archived_build_is_allowed_for_a_reason(contracting, db):
    contract(contracting, allow=frozenset(["archived-build"]), reason="space is cheap")
    found = deployments.newest(db)
    assert (found.allowed, found.reason) == (["archived-build"], "space is cheap")
    assert states(db) == {1: "archived", 2: "live"}


def test_contract_is_refused_while_the_old_release_is_connected(contracting, database_url, db):
    release = contracting.settings.release.model_copy(
        update={"application": "shop", "version": "2", "watch_s": 0}
    )
    settings = contracting.settings.model_copy(update={"release": release})
    db.execute("SET application_name = 'shop/1'")
    with pytest.raises(Refused, match="old release may still need"):
        pipeline.deploy(
            settings,
            phase="contract",
            options=Options(allow=frozenset(["archived-build"]), reason="r"),
        )


def test_contract_is_refused_before_its_expand_part(contracting):
    edit(contracting, '"new"', '"newer"')
    with pytest.raises(Refused, match="pending: projection orders"):
        contract(contracting)


# Going back


def go_back(project, number: int, **how):
    return undo.undo(project.settings, undo.plan(project.settings, number, **how), reason="a test")


def test_rollback_undoes_the_last_deployment_as_a_whole(released, cli, db):
    pipeline.deploy(released.settings, options=QUICK)
    result = cli("--json", "rollback", "--reason", "r", "--yes")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["deployment"] == 1
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute("SELECT to_regclass('notes')").fetchone() == ("notes",)
    assert [e.act for e in ledger.entries(db)][-2:] == ["swap-back", "rollback"]
    assert rows(db) == [(1, "rolled-back")]
    with pytest.raises(Refused, match="rolled back already"):
        undo.plan(released.settings, 1)


def test_a_first_build_stays_live_where_its_deployment_is_undone(shop, db):
    pipeline.deploy(shop.settings, options=QUICK)
    done = go_back(shop, 1)
    assert [e.subject for e in done.undone] == ["0001"]
    assert states(db) == {1: "live"}
    assert rows(db) == [(1, "rolled-back")]


def test_what_loses_data_is_undone_with_accept_loss_alone(released, cli, db):
    script = released.root / "migrations" / "rollback" / "0002.sql"
    script.write_text(_drops("a", "the notes' a"))
    pipeline.deploy(released.settings, options=QUICK)
    refused = cli("rollback", "--deployment", "1", "--reason", "r", "--yes")
    assert refused.exit_code == 3
    assert "0002: the notes' a" in refused.stderr
    assert states(db) == {1: "archived", 2: "live"}
    done = cli("rollback", "--deployment", "1", "--accept-loss", "--reason", "r", "--yes")
    assert done.exit_code == 0, done.stderr
    assert (states(db), rows(db)[0]) == ({1: "live", 2: "archived"}, (1, "rolled-back"))


def test_a_loss_that_no_script_declares_counts_as_one(notes):
    (notes.root / "migrations" / "rollback" / "0002.sql").write_text(
        "ALTER TABLE notes DROP COLUMN a;"
    )
    pipeline.deploy(notes.settings, options=QUICK)
    with pytest.raises(Refused, match="loses data"):
        undo.plan(notes.settings, 1)


def test_what_a_later_deployment_may_stand_on_is_not_undone(notes, cli):
    pipeline.deploy(notes.settings, options=QUICK)
    revision(notes, "0003", "0002", "ALTER TABLE notes ADD COLUMN b text", _drops("b"))
    pipeline.deploy(notes.settings, options=QUICK)
    with pytest.raises(Refused, match="0003 was applied after deployment 1"):
        undo.plan(notes.settings, 1)
    for number in (2, 1):
        go_back(notes, number)


@pytest.mark.parametrize(
    "when", [pytest.param("NEW.act = 'swap-back'", marks=CHAOS), "NEW.act = 'rollback'"]
)
@pytest.mark.chaos
def test_a_rollback_that_is_killed_goes_on_where_it_stopped(released, db, when):
    pipeline.deploy(released.settings, options=QUICK)
    db.execute(FREEZE.format(table="ledger", when=when))
    command = ["rollback", "--deployment", "1", "--reason", "r", "--yes"]
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", *command],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        await_(lambda: frozen(db), "the rollback at its step")
        running.send_signal(signal.SIGKILL)
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION migrator.hold_here() CASCADE")
    go_back(released, 1)
    assert states(db) == {1: "live", 2: "archived"}
    assert rows(db)[0] == (1, "rolled-back")
    undone = [e.undoes for e in ledger.entries(db) if e.undoes]
    assert len(undone) == len(set(undone)) == 2


def test_an_unfinished_deployment_can_be_undone(notes, db):
    pipeline.deploy(notes.settings, options=Options(until="up", skip_drift=True))
    go_back(notes, 1)
    assert rows(db) == [(1, "rolled-back")]
    assert [e.subject for e in ledger.entries(db) if e.act == "rollback"] == ["0002"]


def test_a_revision_applied_by_hand_is_undone_by_itself(notes, cli, db):
    pipeline.deploy(notes.settings, options=QUICK)
    revision(notes, "0003", "0002", "ALTER TABLE notes ADD COLUMN b text", _drops("b"))
    assert cli("up").exit_code == 0
    assert cli("rollback", "--reason", "r", "--yes").exit_code == 0
    assert [e.subject for e in ledger.entries(db) if e.act == "rollback"] == ["0003"]
