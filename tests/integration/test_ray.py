"""The Ray executor on a real cluster of several nodes: `make ray` runs this, `make test` does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import tests
from migrator.errors import Busy, CannotConnect, Overtaken, WorkerLost
from migrator.projections.rebuild import rebuild
from migrator.settings import Ray
from tests.executors import Conformance, nothing_left
from tests.integration.test_kill import await_
from tests.projects import count, placed, states

pytestmark = [
    pytest.mark.ray,
    # Ray's own modules, as they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PASSWORD = uuid.uuid4().hex
MB = 1_000_000

# A worker waits in its commit for as long as the row is there.
HOLD = """
    CREATE TABLE hold (partition int);
    CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      WHILE EXISTS (SELECT FROM hold h WHERE h.partition = NEW.partition) LOOP
        PERFORM pg_sleep(0.05);
      END LOOP;
      RETURN NEW;
    END $$;
    CREATE TRIGGER hold_here BEFORE UPDATE ON migrator.position
    FOR EACH ROW WHEN (NEW.next_offset > OLD.next_offset) EXECUTE FUNCTION hold_here()
"""


def die_at_first(task: int, report) -> None:
    report(task)
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def be_overtaken_at_first(task: int, report) -> None:
    if task == 1:
        raise Overtaken("another worker has moved the position")
    report(task)


def two(task: int) -> int:
    return 2


def the_same(task: int) -> int:
    return task


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    """A head without processors, for which the parents stand, and two nodes with one each."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield SimpleNamespace(
            address=made.address,
            add=lambda: made.add_node(num_cpus=1),
            remove=lambda node: made.remove_node(node, allow_graceful=False),
            nodes=[made.add_node(num_cpus=1) for _ in range(2)],
            session=Path(made.head_node.get_session_dir_path()),
        )
    finally:
        made.shutdown()


@pytest.fixture
def make_executor(cluster):
    """`make_executor(retries=0)`: an executor on the cluster that sends these tests along."""
    from migrator.executors.ray import RayExecutor

    def make(**settings):
        given = {"address": cluster.address, "memory_mb_per_worker": 50, **settings}
        folder = Path(tests.__path__[0])
        return RayExecutor(Ray(**given), folder=folder, memory_bytes=100 * MB)

    return make


class TestRay(Conformance):
    @pytest.fixture
    def executor(self, make_executor):
        return make_executor()


def test_a_lost_worker_is_tried_again_with_what_is_left(make_executor):
    heard: list[int] = []
    make_executor().run(die_at_first, [1], heard.append, two)
    assert heard[-1] == 2


def test_a_lost_worker_with_nothing_left_is_no_failure(make_executor):
    make_executor().run(die_at_first, [1], print, nothing_left)


def test_an_overtaken_worker_goes_on_from_where_the_other_has_come_to(make_executor):
    heard: list[int] = []
    make_executor().run(be_overtaken_at_first, [1], heard.append, two)
    assert heard == [2]


def test_a_worker_that_is_lost_again_and_again_without_getting_on_is_given_up(make_executor):
    with pytest.raises(WorkerLost, match="a worker of the cluster was lost"):
        make_executor(retries=1).run(die_at_first, [1], print, the_same)


def test_a_cluster_without_room_is_not_waited_for_for_ever(make_executor):
    with pytest.raises(Busy, match="the cluster has no room"):
        make_executor(cpus_per_worker=64, wait_s=1).run(die_at_first, [1], print, two)


def test_an_address_where_nothing_answers_is_told_at_once(make_executor):
    with pytest.raises(CannotConnect, match="no Ray cluster answers"):
        make_executor(address="127.0.0.1:1").run(die_at_first, [1], print, two)


@pytest.fixture
def start(project, database_url, cluster):
    """`start()`: `migrator rebuild-projections --executor ray` as a process, with a password to keep."""
    user, _, rest = database_url.partition("@")
    environment = {
        **os.environ,
        "MIGRATOR_DATABASE_URL": f"{user}:{PASSWORD}@{rest}",
        "MIGRATOR_KAFKA_SASL_PASSWORD": PASSWORD,
        "MIGRATOR_PROJECTIONS_WORKERS": "2",
        "MIGRATOR_PROJECTIONS_MEMORY_MB": "200",
        "MIGRATOR_RAY_ADDRESS": cluster.address,
    }
    started = []

    def begin():
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "migrator", "--json"),
                *("rebuild-projections", "--all", "--executor", "ray"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def held(project, produce, db):
    """40 orders in 4 partitions, the workers of a rebuild kept in their second commit."""
    produce(project.topic, [placed(n) for n in range(40)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n) for n in range(40, 90)])
    db.execute(HOLD)
    for part in range(4):
        hold(db, part)
    return project


def hold(db, partition: int) -> None:
    db.execute("INSERT INTO hold VALUES (%s)", (partition,))


def release(db) -> None:
    db.execute("DELETE FROM hold")


def waiting(db) -> int:
    """How many workers wait in their commit."""
    return db.execute(
        """SELECT count(*) FROM pg_stat_activity
           WHERE application_name LIKE 'migrator replay%' AND wait_event = 'PgSleep'
             AND datname = current_database()"""
    ).fetchone()[0]


def workers(db) -> int:
    return db.execute(
        """SELECT count(*) FROM pg_stat_activity
           WHERE application_name LIKE 'migrator replay%' AND datname = current_database()"""
    ).fetchone()[0]


def test_a_node_killed_half_way_costs_what_it_had_not_committed_and_nothing_else(
    held, cluster, db, start
):
    running = start()
    await_(lambda: waiting(db) == 2, "both workers in a commit", seconds=60)
    cluster.remove(cluster.nodes.pop())
    await_(lambda: workers(db) == 1, "the killed node's session at its end", seconds=60)
    release(db)
    out, err = running.communicate(timeout=120)
    cluster.nodes.append(cluster.add())
    assert running.returncode == 0, out + err
    assert "a worker is replaced" in err
    assert count(db) == 90
    assert json.loads(out)["projections"][0]["events"] == 90
    assert states(db)[2] == "live"


def test_no_worker_goes_on_when_its_parent_was_killed(held, cluster, db, start):
    running = start()
    await_(lambda: waiting(db) == 2, "both workers in a commit", seconds=60)
    running.send_signal(signal.SIGKILL)
    await_(lambda: workers(db) == 0, "the end of the workers", seconds=60)
    release(db)
    assert states(db) == {1: "live", 2: "replaying"}
    assert db.execute(
        "SELECT sum(next_offset) FROM migrator.position WHERE build = 2"
    ).fetchone() == (0,)


def test_ctrl_c_ends_the_workers(held, cluster, db, start):
    running = start()
    await_(lambda: waiting(db) == 2, "both workers in a commit", seconds=60)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 1
    await_(lambda: workers(db) == 0, "the end of the workers", seconds=30)


def test_no_file_of_the_cluster_and_no_process_shows_a_password(held, cluster, db, start):
    running = start()
    await_(lambda: waiting(db) == 2, "both workers in a commit", seconds=60)
    shown = [
        path
        for pattern in ("cmdline", "environ")
        for path in Path("/proc").glob(f"[0-9]*/{pattern}")
        if path.parent.name not in (str(running.pid), str(os.getpid()))
    ]
    kept = [path for path in cluster.session.rglob("*") if path.is_file()]
    release(db)
    running.communicate(timeout=120)
    assert running.returncode == 0
    found = [path for path in {*shown, *kept} if holds(path, PASSWORD.encode())]
    assert found == []


def holds(path: Path, word: bytes) -> bool:
    try:
        return word in path.read_bytes()
    except OSError:
        return False
