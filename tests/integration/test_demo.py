"""The demo as a new user runs it: in an empty folder, with an environment that leads elsewhere."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from migrator.demo import facts, produce
from migrator.demo.reader import Reader
from migrator.demo.records import Record
from migrator.errors import MigratorError, Refused

MIGRATOR = [sys.executable, "-m", "migrator"]
# Whatever of this were used, the demo would fail.
ELSEWHERE = {
    "MIGRATOR_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/production",
    "MIGRATOR_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "MIGRATOR_KAFKA_SECURITY_PROTOCOL": "ssl",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/production",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGSSLMODE": "verify-full",
}


@pytest.fixture(scope="module")
def scratch():
    """A folder for everything temporary that the demo makes; servers of root must reach it."""
    folder = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start(scratch):
    """`start("demo", ...)`: the command in an empty folder."""

    def started(*args):
        empty = Path(tempfile.mkdtemp(dir=scratch, prefix="empty-"))
        return subprocess.Popen(
            [*MIGRATOR, *args],
            cwd=empty,
            env={**os.environ, **ELSEWHERE, "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture(scope="module")
def told(start):
    """One run for all tests that look at what it said: the document, the story, the exit code."""
    process = start("--json", "demo", "--events", "5000")
    stdout, stderr = process.communicate(timeout=300)
    assert stdout, stderr
    return json.loads(stdout), stderr, process.returncode


def test_every_fact_holds_whatever_the_environment_says(told):
    document, story, code = told
    assert [fact for fact in document["facts"] if not fact["ok"]] == []
    assert (code, document["ok"]) == (0, True), story
    found = {(f["source"], f["name"]): f["found"] for f in document["facts"]}
    assert found["CDNOW", "orders"] == 69_659
    assert found["CDNOW", "cents by customer"] == 250_031_563
    assert found["topic", "events folded"] == document["events"] == 74_659
    assert found["CDNOW", "customers with second_order_at"] == 11_662
    assert found["way back", "columns customers.second_order_at"] == 0


def test_a_hammering_reader_meets_no_error_and_no_long_stall(told):
    document, _, _ = told
    cut_over, swap_back = document["readers"]
    for reader in (cut_over, swap_back):
        assert reader["errors"] == 0
        assert reader["reads"] > 10
        assert 0 < reader["stall_ms"] < 1000  # the bar is lower; machines that run tests are busy


def test_the_story_shows_the_commands_and_the_change(told):
    _, story, _ = told
    assert re.findall(r"^\$ (.*)$", story, re.MULTILINE) == [
        "migrator up",
        "migrator rebuild-projections --projection orders --projection customers",
        "migrator rebuild-projections --projection customers",
        'migrator rollback --reason "trying the way back"',
        'migrator rollback --to 0002 --reason "trying the way back"',
    ]
    assert "+    second_order_at: Mapped[datetime | None]" in story


def test_no_folder_is_left(told, scratch):
    assert [p.name for p in scratch.iterdir() if p.name.startswith("migrator-")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_server_and_no_folder(start, scratch, number):
    process = start("demo")
    port = None
    for line in process.stdout:
        if found := re.search(r"postgresql://postgres@127\.0\.0\.1:(\d+)/", line):
            port = found[1]
        if line.startswith("3. "):
            break
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 1, signal.SIGTERM: 143}[number], stderr
    assert "Traceback" not in stderr
    assert [p.name for p in scratch.iterdir() if p.name.startswith("migrator-")] == []
    assert port, "the story names the server"
    assert subprocess.run(["pgrep", "-f", str(scratch)], check=False).returncode == 1


def test_a_wheel_carries_the_sample_project(tmp_path):
    checkout = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    carried = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("migrations", "projections"):
        files = subprocess.run(
            ["git", "ls-files", folder], cwd=checkout, check=True, capture_output=True, text=True
        ).stdout.split()
        assert files
        assert {f"migrator/demo/sample/{file}" for file in files} <= carried


def test_a_planted_difference_is_found(db):
    db.execute("CREATE TABLE orders (customer_id text, total_cents bigint)")
    db.execute("INSERT INTO orders SELECT '00001', 1 FROM generate_series(1, 69658)")
    orders = facts.of_cdnow()[0]
    assert [fact.ok for fact in facts.ask(db, [orders])] == [False]
    db.execute("INSERT INTO orders VALUES ('00002', 1), ('G000001', 1)")
    assert [fact.ok for fact in facts.ask(db, [orders])] == [True]


def test_the_reader_counts_a_table_that_is_gone_or_wrong_as_errors(db, database_url):
    db.execute("CREATE TABLE t AS SELECT 1 AS a")
    with Reader(database_url, "SELECT a FROM t", (1,)) as reader:
        db.execute("UPDATE t SET a = 2")
        _wait_for_reads(db)
        db.execute("DROP TABLE t")
        _wait_for_reads(db)
    assert reader.reads.errors > 1
    assert "(2,) instead of (1,)" in reader.reads.shown


def test_the_reader_sees_a_stall_at_its_full_length(db, database_url):
    db.execute("CREATE TABLE t AS SELECT 1 AS a")
    with Reader(database_url, "SELECT a FROM t", (1,)) as reader:
        db.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.3); COMMIT")
    assert reader.reads.errors == 0
    assert 250 < reader.reads.worst_ms(float("-inf"), float("inf")) < 3000


def test_a_reader_that_cannot_read_at_all_stops_the_demo():
    with (
        pytest.raises(MigratorError, match=r"could not read once: .*refused"),
        Reader("postgresql://nobody@127.0.0.1:1/x", "SELECT 1", (1,)),
    ):
        pass


def _wait_for_reads(db):
    """Until the reader has begun another query than the one under way now."""
    query = (
        "SELECT query_start FROM pg_stat_activity WHERE application_name = 'migrator demo reader'"
    )
    before = after = db.execute(query).fetchone()
    for _ in range(1000):
        after = db.execute(query).fetchone()
        if after != before:
            return
    raise AssertionError("the reader reads no more")


def test_each_key_keeps_its_partition_and_nothing_is_written_twice(topic, brokers, db):
    kafka = {"bootstrap.servers": brokers}
    name = topic("orders") + ".demo"
    produce.make_topic(kafka, name, partitions=4)
    records = [Record(f"k{n % 9}", b"%d" % n) for n in range(5000)]
    assert produce.produce(kafka, name, iter(records)) == 5000
    with pytest.raises(Refused, match="is there already"):
        produce.make_topic(kafka, name, partitions=4)
    with pytest.raises(MigratorError, match="holds 5,001 events after 1 were sent"):
        produce.produce(kafka, name, records[:1])
