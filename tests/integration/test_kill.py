"""kill -9 of a rebuild at every step: live is untouched, and the same command then finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from migrator.projections.rebuild import rebuild
from tests.projects import count, placed, states

FREEZE = """
    CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
    CREATE TRIGGER hold_here BEFORE INSERT OR UPDATE ON migrator.{table}
    FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hold_here()
"""


def frozen(conn: psycopg.Connection) -> bool:
    found = conn.execute(
        """SELECT count(*) FROM pg_stat_activity
           WHERE wait_event = 'PgSleep' AND datname = current_database()"""
    ).fetchone()
    return found[0] > 0


def await_(condition, what: str, *, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not seen in {seconds} s: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("table", "when"),
    [
        ("build", "NEW.state = 'created'"),
        ("build", "NEW.state = 'replaying'"),
        ("position", "NEW.next_offset > 0"),
        ("position", "NEW.next_offset > 0 AND NEW.partition = 3"),
        ("build", "NEW.state = 'loaded'"),
        ("build", "NEW.state = 'verified'"),
        ("build", "NEW.state = 'archived'"),
        ("build", "NEW.state = 'live'"),
        ("ledger", "NEW.act = 'cut-over'"),
    ],
)
def test_a_rebuild_killed_there_leaves_live_untouched_and_then_finishes(
    project, produce, db, table, when
):
    produce(project.topic, [placed(n) for n in range(40)])
    rebuild(project.settings, ["orders"])
    produce(project.topic, [placed(n) for n in range(40, 90)])
    db.execute(FREEZE.format(table=table, when=when))
    command = [sys.executable, "-m", "migrator", "rebuild-projections", "--projection", "orders"]
    with subprocess.Popen(
        command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        await_(lambda: frozen(db), "the rebuild at its step")
        running.send_signal(signal.SIGKILL)
    assert count(db) == 40
    await_(lambda: not frozen(db), "the killed run's session at its end")
    db.execute("DROP FUNCTION hold_here() CASCADE")
    assert states(db)[1] == "live"
    rebuild(project.settings, ["orders"])
    assert count(db) == 90
    assert list(states(db).values()).count("live") == 1
    assert db.execute("SELECT sum(events) FROM migrator.position WHERE build = 1").fetchone() == (
        40,
    )
