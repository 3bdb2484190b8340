"""The projector, on real servers: every event once, whatever happens to it and around it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError

import psycopg
import pytest

from migrator.errors import Fenced, MigratorError, Refused
from migrator.projections import build as builds
from migrator.projections.follow import Options, follow
from migrator.projections.rebuild import rebuild
from tests.integration.test_reducers import CUSTOMERS
from tests.own_server import own_server
from tests.projects import edit, event, placed, write

ORDERS = "SELECT * FROM orders ORDER BY 1"
UNTIL = Options(until_caught_up=True)
GIVE_UP_S = 60.0


@pytest.fixture
def live(project, produce, db, make_settings, monkeypatch):
    """`orders` is live with ten events."""
    monkeypatch.setenv("MIGRATOR_KAFKA_SESSION_TIMEOUT_MS", "1000")
    monkeypatch.setenv("MIGRATOR_KAFKA_HEARTBEAT_INTERVAL_MS", "300")
    project.settings = make_settings(project.root)
    produce(project.topic, [placed(n) for n in range(10)])
    rebuild(project.settings, ["orders"])
    return project


class Running:
    """A projector in a thread; its lines are in `said`."""

    def __init__(self, settings: Any, options: Options) -> None:
        self.said: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.applied: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, args=(settings, options))
        self._thread.start()

    def _run(self, settings: Any, options: Options) -> None:
        try:
            self.applied = follow(
                settings, ["orders"], options, self.stop, listener=self.said.append
            )
        except BaseException as exc:  # noqa: BLE001
            self.error = exc

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.said if each["event"] == kind]

    def end(self) -> dict[str, int]:
        self.stop.set()
        self._thread.join(GIVE_UP_S)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.applied

    def join(self) -> None:
        self._thread.join(GIVE_UP_S)
        assert not self._thread.is_alive()


@pytest.fixture
def started() -> Iterator[Callable[..., Running]]:
    running = []

    def start(settings: Any, **options: Any) -> Running:
        running.append(Running(settings, Options(**options)))
        return running[-1]

    yield start
    for each in running:
        each.stop.set()
        each.join()


def caught_up(settings: Any) -> int:
    return follow(settings, ["orders"], UNTIL, threading.Event())["orders"]


def until(reached: Callable[[], Any]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def assert_equals_a_rebuild(project, db, query: str = ORDERS) -> None:
    followed = db.execute(query).fetchall()
    rebuild(project.settings, ["orders"])
    assert db.execute(query).fetchall() == followed


def test_what_comes_is_visible_and_a_rebuild_gives_the_same(live, produce, db, started):
    running = started(live.settings)
    produce(live.topic, [placed(11), ("o3", None), ("o4", event("OrderDeleted"))])
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (9,))
    produce(live.topic, [("o5", event("OrderShipped", carrier="x"))], transactional=True)
    produce(live.topic, [placed(12)], transactional=True, abort=True)
    until(lambda: db.execute("SELECT 1 FROM orders WHERE carrier = 'x'").fetchone())
    assert running.end() == {"orders": 4}
    assert_equals_a_rebuild(live, db)


def test_it_ends_at_the_ends_that_were_there_when_it_began(live, produce, db):
    produce(live.topic, [placed(n) for n in range(20, 30)], transactional=True)
    assert caught_up(live.settings) == 10
    assert caught_up(live.settings) == 0
    assert {p.lag for p in builds.positions(db, 1)} == {0}


@pytest.mark.chaos
def test_two_share_the_partitions_and_one_that_leaves_gives_its_own_back(
    live, produce, db, started
):
    first = started(live.settings)
    until(lambda: first.heard("following"))
    second = started(live.settings)
    until(lambda: any(len(each["partitions"]) == 2 for each in second.heard("following")))
    for n in range(20):
        produce(live.topic, [placed(100 + n * 10 + i) for i in range(10)])
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (210,))
    taken = second.end()["orders"]
    produce(live.topic, [placed(n) for n in range(500, 540)])
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (250,))
    assert first.end()["orders"] + taken == 240
    assert 0 < taken < 240


@pytest.mark.chaos
def test_two_that_both_believe_to_own_a_partition_double_nothing(live, produce, db, started):
    other = live.settings.follow.model_copy(update={"group": "another"})
    both = [
        started(live.settings),
        started(live.settings.model_copy(update={"follow": other})),
    ]
    until(lambda: all(each.heard("following") for each in both))
    for n in range(20):
        produce(live.topic, [placed(100 + n * 10 + i) for i in range(10)])
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (210,))
    assert sum(each.end()["orders"] for each in both) == 200
    assert sum(p.events for p in builds.positions(db, 1)) == 210


def test_it_goes_on_in_the_build_that_a_cut_over_makes_live(live, produce, db, started):
    running = started(live.settings)
    # Both import the project's files, which two commands in one process may not do at a time.
    until(lambda: running.heard("following"))
    for number in range(2, 4):
        produce(live.topic, [placed(number * 100)])
        rebuild(live.settings, ["orders"])
        produce(live.topic, [placed(number * 100 + 1)])
        until(lambda: any(e["build"] == number for e in running.heard("following")))  # noqa: B023
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (14,))
    running.end()
    assert_equals_a_rebuild(live, db)


def test_a_projector_of_another_definition_is_fenced(live, produce, db, started):
    running = started(live.settings)
    until(lambda: running.heard("following"))
    edit(live, 'self.status = "placed"', 'self.status = "new"')
    rebuild(live.settings, ["orders"])
    running.join()
    assert isinstance(running.error, Fenced)
    assert "build 2 of orders is live, of definition" in running.error.found
    assert "--wait" in running.error.next_step


def test_with_wait_it_waits_for_its_build_and_for_the_way_back(live, produce, db, started, cli):
    blue = started(live.settings, waits=True)
    until(lambda: blue.heard("following"))
    edit(live, 'self.status = "placed"', 'self.status = "new"')
    green = started(live.settings, waits=True)
    until(lambda: green.heard("waiting"))
    rebuild(live.settings, ["orders"])
    until(lambda: green.heard("following") and blue.heard("waiting"))
    produce(live.topic, [placed(50)])
    until(lambda: db.execute("SELECT status FROM orders WHERE order_id = 'o50'").fetchone())
    assert db.execute("SELECT DISTINCT status FROM orders").fetchall() == [("new",)]
    back = cli("rollback", "--instant", "--reason", "x", "--yes")
    assert back.exit_code == 0, back.stderr
    until(lambda: db.execute("SELECT DISTINCT status FROM orders").fetchall() == [("placed",)])
    until(lambda: db.execute("SELECT 1 FROM orders WHERE order_id = 'o50'").fetchone())
    assert blue.end() == {"orders": 1}


def test_an_archived_build_of_its_definition_is_kept_hot(live, produce, db, started):
    settings = live.settings.model_copy(
        update={"follow": live.settings.follow.model_copy(update={"keep_hot_s": 0.05})}
    )
    blue = started(settings, keep_hot=True)
    until(lambda: blue.heard("following"))
    edit(live, 'self.status = "placed"', 'self.status = "new"')
    rebuild(live.settings, ["orders"])
    produce(live.topic, [placed(50)])
    assert caught_up(live.settings) == 1
    kept = "SELECT status FROM migrator_build_1.orders WHERE order_id = 'o50'"
    until(lambda: db.execute(kept).fetchone() == ("placed",))


def test_an_event_without_a_handler_stops_it_and_nothing_of_its_batch_stays(live, produce, db):
    produce(live.topic, [placed(11), ("o11", event("Unknown"))], partition=0)
    with pytest.raises(Refused, match="no handler for 'Unknown'"):
        caught_up(live.settings)
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (10,)


QUARANTINE = """SELECT encode(key, 'escape'), error, held_behind = entry FROM migrator.quarantine
                WHERE released_at IS NULL ORDER BY entry"""


def entries(db) -> list[str]:
    found = "SELECT entry FROM migrator.quarantine WHERE released_at IS NULL ORDER BY entry"
    return [str(entry) for (entry,) in db.execute(found)]


def poison(live, produce) -> None:
    """o1's first event does not decode, o2's not fold; more come of both, and of others."""
    produce(
        live.topic,
        [
            placed(1, 500),
            ("o1", b"{"),
            ("o1", event("OrderShipped", carrier="one")),
            placed(3, 7),
            ("o2", event("OrderPlaced", customer_id=1)),
            ("o1", event("OrderShipped", carrier="two")),
            ("o2", event("OrderShipped", carrier="three")),
            ("o9", event("OrderShipped", carrier="nine")),
        ],
        partition=0,
    )


def test_poison_holds_its_key_back_and_no_other(live, produce, db, cli):
    poison(live, produce)
    assert caught_up(live.settings) == 8
    held = db.execute(QUARANTINE).fetchall()
    assert [(key, is_head) for key, _, is_head in held] == [
        ("o1", True),
        ("o2", True),
        ("o1", False),
        ("o1", False),
        ("o2", False),
    ]
    rows = {o: (t, c) for o, _, _, t, c in db.execute(ORDERS).fetchall()}
    assert (rows["o1"], rows["o3"], rows["o9"]) == ((500, None), (7, None), (100, "nine"))
    # Another process goes on holding them back.
    produce(live.topic, [("o1", event("OrderShipped", carrier="last"))], partition=0)
    caught_up(live.settings)
    assert len(db.execute(QUARANTINE).fetchall()) == 6
    assert "waits behind entry" in cli("quarantine", "list").stdout


def test_a_release_folds_what_was_held_back_in_order(live, produce, db, cli, started):
    running = started(live.settings)
    poison(live, produce)
    until(lambda: len(db.execute(QUARANTINE).fetchall()) == 5)
    first, _, third, fourth, _ = entries(db)
    document = json.loads(cli("--json", "quarantine", "release", first, "--reason", "x").stdout)
    assert (document["folded"], document["left_out"]) == ([int(third), int(fourth)], [int(first)])
    shipped = "SELECT carrier FROM orders WHERE order_id = 'o1'"
    assert db.execute(shipped).fetchone() == ("two",)
    # The projector hears of it, and holds the key back no more.
    produce(live.topic, [("o1", event("OrderShipped", carrier="last"))], partition=0)
    until(lambda: db.execute(shipped).fetchone() == ("last",))
    assert [key for key, *_ in db.execute(QUARANTINE).fetchall()] == ["o2", "o2"]
    running.end()


def test_a_held_back_event_that_is_poison_itself_holds_the_rest_back(live, produce, db, cli):
    broken = [("o1", b"{"), ("o1", b"["), ("o1", event("OrderShipped", carrier="two"))]
    produce(live.topic, broken, partition=0)
    caught_up(live.settings)
    first, second, third = entries(db)
    result = cli("quarantine", "release", first, "--reason", "lost")
    assert f"entry {second} does not fold either" in result.stdout
    assert [is_head for _, _, is_head in db.execute(QUARANTINE).fetchall()] == [True, False]
    result = cli("quarantine", "release", third, "--reason", "x")
    assert result.exit_code == 3
    assert f"waits behind entry {second}" in result.stderr
    cli("quarantine", "release", second, "--reason", "lost")
    assert db.execute(QUARANTINE).fetchall() == []
    assert db.execute("SELECT carrier FROM orders WHERE order_id = 'o1'").fetchone() == ("two",)


def test_a_row_that_the_table_does_not_take_holds_its_key_back(live, produce, db):
    records = [placed(n) for n in range(20, 29)]
    records.insert(5, ("new", event("OrderShipped", carrier="x")))
    produce(live.topic, [*records, placed(4, 2**70)], partition=0)
    assert caught_up(live.settings) == 11
    produce(live.topic, [placed(4, 3)], partition=0)
    assert caught_up(live.settings) == 1
    assert [(key, is_head) for key, _, is_head in db.execute(QUARANTINE).fetchall()] == [
        ("new", True),
        ("o4", True),
        ("o4", False),
    ]
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (19,)


def test_without_a_quarantine_it_stops_at_poison(live, produce, db):
    none = live.settings.follow.model_copy(update={"quarantine": 0})
    settings = live.settings.model_copy(update={"follow": none})
    produce(live.topic, [("o1", b"{")], partition=1)
    with pytest.raises(MigratorError, match=r"does not decode.*partition 1"):
        caught_up(settings)


def test_a_full_quarantine_stops_it(live, produce, db):
    few = live.settings.follow.model_copy(update={"quarantine": 3})
    settings = live.settings.model_copy(update={"follow": few})
    produce(live.topic, [("o1", b"{")] * 4, partition=1)
    with pytest.raises(MigratorError, match="4 events are in quarantine, of which 3 wait"):
        caught_up(settings)
    assert db.execute(QUARANTINE).fetchall() == []


@pytest.mark.chaos
def test_several_projections_are_followed_by_one_process(live, produce, db):
    write(live.root, CUSTOMERS.format(topic=live.topic), "customers.py")
    rebuild(live.settings, ["customers"])
    for n in range(10):
        produce(live.topic, [placed(20 + n * 10 + i, n * i) for i in range(10)])
    applied = follow(live.settings, [], UNTIL, threading.Event())
    assert applied == {"orders": 100, "customers": 100}
    customers = "SELECT * FROM customers ORDER BY 1"
    followed = [db.execute(query).fetchall() for query in (ORDERS, customers)]
    rebuild(live.settings, ["orders", "customers"])
    assert [db.execute(query).fetchall() for query in (ORDERS, customers)] == followed


@pytest.mark.chaos
def test_several_topics_are_followed_together(live, produce, db, topic):
    seen = topic("seen")
    edit(live, f'topic="{live.topic}"', f'topic=("{live.topic}", "{seen}")')
    produce(seen, [("o1", event("OrderShipped", carrier="one"))])
    rebuild(live.settings, ["orders"])
    produce(live.topic, [placed(1, 5), placed(11)], transactional=True)
    produce(seen, [("o11", event("OrderShipped", carrier="two"))])
    assert caught_up(live.settings) == 3
    shipped = "SELECT order_id FROM orders WHERE carrier IS NOT NULL ORDER BY 1"
    assert db.execute(shipped).fetchall() == [("o1",), ("o11",)]
    assert_equals_a_rebuild(live, db)


def test_a_dry_run_says_what_it_would_begin_with(live, produce, db, cli):
    produce(live.topic, [placed(11)])
    assert "would follow build 1, with 1 events to come" in cli("follow", "--dry-run").stdout
    edit(live, 'self.status = "placed"', 'self.status = "new"')
    assert "of another definition" in cli("follow", "--dry-run").stdout
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (10,)


def test_without_a_live_build_it_is_refused(project, cli):
    result = cli("follow", "--until-caught-up")
    assert (result.exit_code, "has no ledger" in result.stderr) == (3, True)


@pytest.mark.chaos
def test_it_goes_on_when_the_server_was_restarted(project, produce, make_settings, started):
    with own_server("18") as server:
        settings = make_settings(project.root, database={"url": server.url})
        produce(project.topic, [placed(n) for n in range(10)])
        rebuild(settings, ["orders"])
        running = started(settings)
        until(lambda: running.heard("following"))
        for n in range(1, 3):
            produce(project.topic, [placed(n * 1000 + i) for i in range(500)])
            server.restart()
            expected = (10 + 500 * n,)
            with psycopg.connect(server.url, autocommit=True) as db:
                until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == expected)  # noqa: B023
        running.end()
        with psycopg.connect(server.url, autocommit=True) as db:
            assert sum(p.events for p in builds.positions(db, 1)) == 1010


def test_it_tells_how_it_is(live, produce, db, started):
    running = started(live.settings, port=0, host="127.0.0.1")
    until(lambda: running.heard("serving"))
    at = f"http://127.0.0.1:{running.heard('serving')[0]['port']}"
    until(lambda: _get(f"{at}/readyz")[0] == 200)
    produce(live.topic, [placed(11)])
    until(lambda: 'events_total{projection="orders"} 1.0' in _get(f"{at}/metrics")[1])
    status, said = _get(f"{at}/healthz")
    assert (status, json.loads(said)["projections"][0]["phase"]) == (200, "following")
    metrics = _get(f"{at}/metrics")[1]
    for name in ("lag_events", "batch_seconds_bucket", "quarantined_events", "rebalances_total"):
        assert f"migrator_follow_{name}{{" in metrics
    assert _get(f"{at}/else")[0] == 404


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


@pytest.fixture
def command(live) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`command()`: `migrator --json follow` as a process."""
    running = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "migrator", "--json", "follow", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_and_leave(live, produce, db, command, number):
    process = command()
    produce(live.topic, [placed(11)])
    until(lambda: db.execute("SELECT count(*) FROM orders").fetchone() == (11,))
    process.send_signal(number)
    out, _ = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1]) == {
        "event": "stopped",
        "projection": "orders",
        "events": 1,
    }


def test_killed_in_the_middle_nothing_is_lost_and_nothing_twice(live, produce, db, command):
    produce(live.topic, [placed(n % 997, n) for n in range(20_000)])
    reached = "SELECT sum(events) FROM migrator.position WHERE build = 1"
    process = command()
    until(lambda: db.execute(reached).fetchone() > (10,))
    process.kill()
    process.wait()
    assert db.execute(reached).fetchone() < (20_010,)
    caught_up(live.settings)
    assert db.execute(reached).fetchone() == (20_010,)
    assert_equals_a_rebuild(live, db)
