"""Poison events: put aside with their bytes, up to a limit, neither lost nor doubled by a kill."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import psycopg
import pytest

from migrator.errors import MigratorError
from migrator.executors import local
from migrator.kafka import log
from migrator.projections import quarantine
from migrator.projections.abort import abort
from migrator.projections.poison import Poison
from migrator.projections.rebuild import Options, rebuild
from tests.integration.test_kill import FREEZE, await_, frozen
from tests.projects import count, edit, event, placed, states, write

BREAKS = """self.status = "placed"
        if event.total_cents == 13:
            raise ValueError("unlucky\\x00 \\udc00")
"""
ALLOWED = Options(quarantine=10)


def held(db) -> list[tuple]:
    return db.execute(
        "SELECT build, partition, event_offset, key FROM migrator.quarantine ORDER BY 1, 2, 3"
    ).fetchall()


@pytest.fixture
def breaking(project):
    """A handler that has changed its row when it raises, on events of total 13."""
    edit(project, 'self.status = "placed"', BREAKS.rstrip())
    return project


def test_what_does_not_decode_is_kept_with_its_bytes_and_the_rest_goes_live(
    project, produce, db, cli
):
    produce(project.topic, [placed(1), ("o2", b"\xff\x00{"), placed(3)], partition=1)
    result = cli("--json", "rebuild-projections", "--all", "--quarantine", "1")
    assert result.exit_code == 0
    (rebuilt,) = json.loads(result.stdout)["projections"]
    assert (rebuilt["rows"], rebuilt["events"], rebuilt["quarantined"]) == (2, 3, 1)
    assert {"events it goes without": "1 in quarantine, of key 'o2'"}.items() <= {
        r["check"]: r["found"] for r in rebuilt["results"]
    }.items()
    row = db.execute(
        """SELECT build, topic, partition, event_offset, key, value, event_type, headers,
                  event_time > now() - interval '1 hour' FROM migrator.quarantine"""
    ).fetchone()
    assert row == (1, project.topic, 1, 1, b"o2", b"\xff\x00{", None, [], True)
    assert count(db) == 2


def test_without_the_flag_the_first_one_stops(project, produce, db):
    produce(project.topic, [placed(1), ("o2", b"{")], partition=1)
    with pytest.raises(MigratorError, match="does not decode"):
        rebuild(project.settings, ["orders"], Options(allow=frozenset(["undecodable"])))
    assert held(db) == []


def test_a_handler_that_raised_half_way_leaves_the_row_as_it_was(breaking, produce, db, cli):
    produce(breaking.topic, [placed(1), placed(2, total=13), placed(3)], partition=0)
    produce(breaking.topic, [("o1", event("OrderShipped", carrier="dhl"))], partition=0)
    produce(breaking.topic, [placed(1, total=13), ("o3", event("OrderDeleted"))], partition=0)
    result = cli("rebuild-projections", "--all", "--quarantine", "2")
    assert result.exit_code == 0, result.stderr
    assert db.execute("SELECT order_id, status, total_cents, carrier FROM orders").fetchall() == [
        ("o1", "shipped", 100, "dhl")
    ]
    assert held(db) == [(1, 0, 1, b"o2"), (1, 0, 4, b"o1")]
    assert "quarantine: orders goes without partition 0, offset 1, key 'o2'" in result.stderr
    assert "2 events are in quarantine and not in the table" in result.stdout


def test_one_more_than_the_limit_stops_with_the_place_of_each(breaking, produce, db):
    produce(breaking.topic, [placed(1), placed(2, total=13), placed(3, total=13)], partition=2)
    with pytest.raises(
        MigratorError, match=r"offset 2, key 'o3'.*the quarantine is full"
    ) as caught:
        rebuild(breaking.settings, ["orders"], Options(quarantine=1))
    assert "before it: a handler failed" in caught.value.found
    assert "offset 1, key 'o2'" in caught.value.found
    assert caught.value.data["offset"] == 2
    assert (held(db), states(db)) == ([], {1: "replaying"})


def test_the_limit_is_for_all_workers_together(project, produce, db):
    for partition in range(4):
        produce(project.topic, [(f"o{partition}", b"{")], partition=partition)
    with pytest.raises(MigratorError, match="the quarantine is full"):
        rebuild(project.settings, ["orders"], Options(quarantine=3))
    assert len(held(db)) <= 3
    rebuild(project.settings, ["orders"], Options(quarantine=4))
    assert held(db) == [(1, n, 0, f"o{n}".encode()) for n in range(4)]


def test_workers_that_commit_at_once_are_counted_one_after_the_other(
    project, produce, database_url, db
):
    produce(project.topic, [placed(1)])
    rebuild(project.settings, ["orders"])
    errors = []

    def second() -> None:
        with psycopg.connect(database_url) as conn, pytest.raises(MigratorError) as caught:
            quarantine.hold(conn, 1, [poison(1)], 1)
        errors.append(caught.value.found)

    with psycopg.connect(database_url) as conn:
        quarantine.hold(conn, 1, [poison(0)], 1)
        other = threading.Thread(target=second)
        other.start()
        await_(
            lambda: db.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0],
            "the second worker at the count",
        )
    other.join()
    assert "the quarantine is full" in errors[0]


def poison(offset: int) -> Poison:
    return Poison("t", 0, offset, b"k", (), b"v", None, None, "broken")


def test_an_event_that_one_projection_cannot_decode_is_missing_there_alone(project, produce, db):
    write(
        project.root,
        f"""
        from migrator import Event, Projection, on
        from sqlalchemy.orm import Mapped, mapped_column


        class AnyPlaced(Event, type="OrderPlaced"):
            pass


        class Seen(Projection, topic="{project.topic}"):
            __tablename__ = "seen"
            ignores = ("OrderShipped", "OrderDeleted", "OrderSeen")
            order_id: Mapped[str] = mapped_column(primary_key=True)

            @on(AnyPlaced)
            def placed(self, event: AnyPlaced) -> None: ...
        """,
        "seen.py",
    )
    produce(project.topic, [placed(1), ("o2", event("OrderPlaced", customer_id=3))], partition=0)
    rebuild(project.settings, ["orders", "seen"], ALLOWED)
    assert (count(db), count(db, "seen")) == (1, 2)
    assert held(db) == [(1, 0, 1, b"o2")]


def test_behind_a_spill_the_partition_is_folded_again_from_it_alone(
    breaking, produce, db, monkeypatch
):
    monkeypatch.setattr(log, "BATCH", 10)
    reports = []

    def inline(function, tasks, listener, renew):
        def hear(said):
            reports.append(said)
            listener(said)

        for task in tasks:
            function(replace(task, memory_bytes=1), hear)

    monkeypatch.setattr(local, "run", inline)
    records = [placed(n, total=n % 40 or 1) for n in range(100)]
    produce(breaking.topic, records + records, partition=0)
    rebuild(breaking.settings, ["orders"], ALLOWED)
    assert [offset for _, _, offset, _ in held(db)] == [13, 53, 93, 113, 153, 193]
    assert count(db) == 97
    reached = [r.next_offset for r in reports if hasattr(r, "next_offset") and r.partition == 0]
    back = [after for before, after in itertools.pairwise(reached) if after <= before]
    assert len(back) == 1
    assert back[0] >= 20


@pytest.mark.parametrize(
    ("table", "when"),
    [
        ("quarantine", "NEW.partition = 1"),
        ("position", "NEW.partition = 1 AND NEW.next_offset > 0"),
    ],
)
def test_a_kill_at_the_commit_neither_loses_nor_doubles_one(project, produce, db, table, when):
    produce(project.topic, [placed(1), ("o2", b"{")], partition=0)
    produce(project.topic, [placed(3), ("o4", b"{")], partition=1)
    rebuild(project.settings, ["orders"], Options(quarantine=2, cut_over=False))
    db.execute(FREEZE.format(table=table, when=when))
    command = [sys.executable, "-m", "migrator", "rebuild-projections", "--all", "--restart"]
    with subprocess.Popen(
        [*command, "--quarantine", "2"],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        await_(lambda: frozen(db), "the rebuild at its commit")
        running.send_signal(signal.SIGKILL)
    await_(lambda: not frozen(db), "the killed run's session at its end")
    assert held(db) in ([], [(2, 0, 1, b"o2")])
    db.execute("DROP FUNCTION hold_here() CASCADE")
    report = rebuild(project.settings, ["orders"], Options(quarantine=2))
    assert held(db) == [(2, 0, 1, b"o2"), (2, 1, 1, b"o4")]
    assert (report.projections[0].quarantined, count(db)) == (2, 2)


def test_aborting_the_build_takes_its_quarantine_with_it(project, produce, db):
    produce(project.topic, [placed(1), ("o2", b"{")], partition=0)
    rebuild(project.settings, ["orders"], replace(ALLOWED, cut_over=False))
    abort(project.settings, 1)
    assert held(db) == []


@pytest.fixture
def live(breaking, produce):
    """A live build that goes without two events: one that is no text, one that broke a handler."""
    produce(breaking.topic, [placed(1), (b"o\xff", b"\xff\x1b[0m")], partition=0)
    produce(breaking.topic, [placed(3, total=13)], partition=1)
    rebuild(breaking.settings, ["orders"], ALLOWED)
    return breaking


def entries(cli, *args: str) -> list[dict]:
    return json.loads(cli("--json", "quarantine", "list", *args).stdout)["quarantine"]


def test_list_and_show_tell_the_bytes_as_text_or_hex(live, cli):
    text, found = cli("quarantine", "list").stdout, entries(cli)
    assert len(text.splitlines()) == len(found) == 2
    broken = next(e for e in found if e["event_type"])
    strange = next(e for e in found if not e["event_type"])
    assert broken["error"].startswith(
        "a handler failed: ValueError: unlucky\\x00 \\udc00 (orders.py,"
    )
    assert broken["key"] == {"text": "o3", "hex": "6f33"}
    assert (strange["key"], strange["value"]["hex"]) == (
        {"text": None, "hex": "6fff"},
        "ff1b5b306d",
    )
    shown = cli("quarantine", "show", str(strange["entry"])).stdout
    assert "value: hex ff1b5b306d" in shown
    assert "offset 1" in shown
    assert '"total_cents": 13' in cli("quarantine", "show", str(broken["entry"])).stdout
    assert "key: hex 6f33" in cli("quarantine", "show", str(broken["entry"]), "--hex").stdout
    assert entries(cli, "--build", "2") == entries(cli, "--projection", "x") == []


def test_a_released_entry_is_seen_to_and_stays_on_record(live, cli, db):
    first, second = (str(e["entry"]) for e in entries(cli))
    dry = cli("quarantine", "release", first, "--reason", "a test record", "--dry-run")
    assert "Nothing was changed." in dry.stdout
    assert len(entries(cli)) == 2
    assert cli("quarantine", "release", first, "--reason", "a test record").exit_code == 0
    assert [str(e["entry"]) for e in entries(cli)] == [second]
    assert "(released: a test record)" in cli("quarantine", "list", "--released").stdout
    assert cli("quarantine", "release", first, second, "9", "--reason", "x").exit_code == 2
    assert len(entries(cli)) == 1


def test_a_corrected_definition_reads_the_event_again(live, cli, db):
    edit(live, "event.total_cents == 13", "False")
    rebuild(live.settings, ["orders"], ALLOWED)
    assert count(db) == 2
    assert [build for build, *_ in held(db)] == [1, 1, 2]


def test_an_unfinished_build_keeps_what_it_goes_without(project, produce, db, cli):
    produce(project.topic, [placed(1), ("o2", b"{")], partition=0)
    rebuild(project.settings, ["orders"], replace(ALLOWED, cut_over=False))
    result = cli("quarantine", "release", "1", "--reason", "x")
    assert result.exit_code == 3
    assert "--restart --projection orders" in result.stderr


def test_status_says_how_many_a_build_goes_without(live, cli):
    assert "2 events in quarantine  (migrator quarantine list --build 1)" in cli("status").stdout
    found = json.loads(cli("--json", "status").stdout)
    assert found["projections"][0]["live"]["quarantined"] == 2


def test_without_a_ledger_nothing_is_in_quarantine(project, cli, db):
    assert "No event is in quarantine." in cli("quarantine", "list").stdout
    assert cli("quarantine", "show", "1").exit_code == 2
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)
