"""A deployment that is not well goes back by itself; nobody who reads or writes meanwhile sees an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import psycopg
import pytest

from migrator.deploy import checkpoint, pipeline
from migrator.deploy import deployment as deployments
from migrator.deploy.steps import Options
from migrator.errors import DeployRolledBack, RollbackFailed
from migrator.migrations.up import up
from migrator.postgres import ledger
from migrator.projections.rebuild import rebuild
from tests.answering import answering
from tests.integration import test_kill
from tests.integration.test_kill import await_, frozen
from tests.projects import count, edit, placed, revision, states

# In the schema that `verify` leaves out: elsewhere the function would be drift.
FREEZE = test_kill.FREEZE.replace("hold_here()", "migrator.hold_here()")
QUICK = Options(skip_drift=True)
READS = "SELECT count(*), min(status) FROM orders"
WRITES = "INSERT INTO notes DEFAULT VALUES"
CLIENT = """
import sys, psycopg
errors, done = [], 0
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    print("begun", flush=True)
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            conn.execute(sys.argv[2])
            done += 1
        except psycopg.Error as exc:
            errors.append(str(exc))
print(done, errors, flush=True)
"""


@pytest.fixture
def shop(project, produce):
    """Live, with a revision and a changed projection pending; `shop.app` is what health checks ask."""
    ddl = "CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"
    revision(project, "0001", None, ddl, "DROP TABLE notes;")
    produce(project.topic, [placed(n) for n in range(10)])
    up(project.settings)
    rebuild(project.settings, ["orders"])
    add(project, "nothing")
    edit(project, '"placed"', '"new"')
    return project


def add(project, loses: str) -> None:
    undo = f"-- loses: {loses}\nALTER TABLE notes DROP COLUMN a;"
    revision(project, "0002", "0001", "ALTER TABLE notes ADD COLUMN a text", undo)


@pytest.fixture
def app(database_url):
    """The application: it is well while it knows the orders' states."""

    def answer(_path):
        with psycopg.connect(database_url) as conn:
            found = {status for (status,) in conn.execute("SELECT DISTINCT status FROM orders")}
        return (200, {"status": "ok"}) if found <= server.known else (503, {"status": "lost"})

    with answering(answer) as server:
        server.known = {"placed"}
        yield server


@pytest.fixture
def checked(shop, app, monkeypatch, make_settings):
    monkeypatch.setenv("MIGRATOR_HEALTH__WINDOW_S", "0.2")
    monkeypatch.setenv("MIGRATOR_HEALTH__INTERVAL_S", "0.05")
    monkeypatch.setenv("MIGRATOR_HEALTH__CHECKS", f'[{{"name": "shop", "url": "{app.url}"}}]')
    shop.settings, shop.app = make_settings(shop.root), app
    return shop


@contextmanager
def clients(database_url):
    """A reader and a writer, each a process; gives what each had done when the block ended."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, database_url, statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for statement in (READS, WRITES)
    ]
    said: list[str] = []
    try:
        for each in running:
            assert each.stdout.readline() == "begun\n"
        yield said
        said += [each.communicate("stop")[0] for each in running]
    finally:
        for each in running:
            each.kill()
            each.communicate()


def test_not_well_it_goes_back_and_then_a_good_one_goes_through_without_a_client_error(
    checked, cli, db, database_url
):
    with clients(database_url) as said:
        bad = cli("deploy", "--skip-drift")
        assert bad.exit_code == 7
        assert (
            "not healthy and is rolled back: shop failed 3 times, 2 are allowed: 503" in bad.stderr
        )
        assert (states(db), deployments.newest(db).state) == (
            {1: "live", 2: "archived"},
            "rolled-back",
        )
        acts = [(e.act, e.subject) for e in ledger.entries(db)][-4:]
        assert acts == [
            ("up", "0002"),
            ("cut-over", "orders"),
            ("swap-back", "orders"),
            ("rollback", "0002"),
        ]
        checked.app.known.add("new")
        good = cli("deploy", "--skip-drift")
        assert good.exit_code == 0, good.stderr
        assert "done     health: shop: " in good.stdout
    for line in said:
        done, _, errors = line.partition(" ")
        assert int(done) > 0
        assert errors.strip() == "[]"
    assert db.execute("SELECT DISTINCT status FROM orders").fetchall() == [("new",)]
    assert count(db) == 10


def test_what_would_lose_data_stays_and_is_named(checked, db):
    add(checked, "the notes' a")
    with pytest.raises(DeployRolledBack, match="0002 loses the notes' a") as caught:
        pipeline.deploy(checked.settings, options=QUICK)
    assert caught.value.data["stays"] == ["0002"]
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0002",)


def test_contract_that_cannot_be_undone_without_a_loss_ends_with_what_to_do(checked, cli, db):
    up(checked.settings)
    edit(checked, '"new"', '"placed"')
    checked.app.known = set()
    revision(checked, "0003", "0002", "ALTER TABLE notes DROP COLUMN a", "-- loses: a\nSELECT 1;")
    file = checked.root / "migrations" / "versions" / "0003_r.py"
    file.write_text(file.read_text().replace("'expand'", "'contract'"))
    bad = cli("deploy", "--phase", "contract", "--skip-drift")
    assert bad.exit_code == 8
    for said in ("0003 loses a", "migrator rollback --deployment 1 --accept-loss", "go forward"):
        assert said in bad.stderr
    assert deployments.newest(db).state == "rollback-failed"
    done = cli("rollback", "--deployment", "1", "--accept-loss", "--reason", "r", "--yes")
    assert done.exit_code == 0
    assert deployments.newest(db).state == "rolled-back"


def test_a_rollback_that_fails_ends_with_8_and_can_be_taken_up_again(checked, db, database_url):
    projections = checked.settings.projections.model_copy(update={"swap_deadline_s": 0.2})
    hasty = checked.settings.model_copy(update={"projections": projections})
    with psycopg.connect(database_url) as reader:

        def answer(_path):
            reader.execute("SELECT FROM orders")  # its transaction stays open on the table
            return 503, {}

        checked.app.answer = answer
        with pytest.raises(RollbackFailed, match="its rollback failed: the tables of orders"):
            pipeline.deploy(hasty, options=QUICK)
    assert states(db) == {1: "archived", 2: "live"}
    assert deployments.newest(db).state == "rollback-failed"


@pytest.mark.chaos
def test_an_automatic_rollback_that_is_killed_is_finished_by_the_same_command(checked, cli, db):
    pipeline.deploy(checked.settings, options=Options(skip_drift=True, until="verify"))
    db.execute(FREEZE.format(table="ledger", when="NEW.act = 'rollback'"))
    with subprocess.Popen(
        [sys.executable, "-m", "migrator", "deploy", "--skip-drift"],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        await_(lambda: frozen(db), "the rollback of the revision", seconds=60)
        running.send_signal(signal.SIGKILL)
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION migrator.hold_here() CASCADE")
    assert deployments.newest(db).state == "rolling-back"
    assert cli("deploy", "--skip-drift").exit_code == 7
    assert deployments.newest(db).state == "rolled-back"
    assert states(db) == {1: "live", 2: "archived"}
    assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


@pytest.mark.parametrize(
    ("statement", "passed", "said"),
    [
        ("SELECT count(*) = 10 FROM orders", True, "true"),
        ("SELECT count(*) > 10 FROM orders", False, "found False"),
        ("SELECT 1 WHERE false", False, "found none"),
        ("SELECT true FROM nowhere", False, 'relation "nowhere" does not exist'),
        ("CREATE TABLE x (a int)", False, "read-only transaction"),
    ],
)
def test_an_sql_check_passes_where_its_first_row_is_true(shop, statement, passed, said):
    from migrator.deploy import health
    from migrator.settings import HealthCheck

    found = health.ask(shop.settings, HealthCheck(name="orders", sql=statement))
    assert (found.passed, said in found.said) == (passed, True)


def test_on_neon_a_checkpoint_is_taken_first_and_once(neon, tmp_path, make_settings, database_url):
    settings = make_settings(tmp_path)
    project = SimpleNamespace(root=tmp_path)
    revision(project, "0001", None, "CREATE TABLE notes (id int PRIMARY KEY)", "DROP TABLE notes;")
    pipeline.deploy(settings, options=Options(skip_drift=True, until="checkpoint"))
    pipeline.deploy(settings, options=QUICK)
    with psycopg.connect(database_url) as conn:
        done = deployments.newest(conn)
    (made,) = checkpoint.every(settings)
    assert (made.name, made.state) == (f"deploy-1-{str(done.run)[:8]}", "ready")
    assert made.row.revision is None
