"""Expand revisions are proven before anything is applied; contract waits for the old release to go."""

from __future__ import annotations

import json

import psycopg
import pytest

from migrator.errors import Refused, SettingsError, UsageError
from migrator.migrations import phase_check, release, up
from migrator.migrations.phase_check import UNCHECKED, Warned
from migrator.postgres import ledger
from migrator.settings import Release
from tests import revisions

CONTRACT = 'phase = "contract"'
WHY = "nobody reads it"


@pytest.fixture
def settings(tmp_path, make_settings, db):
    """A project on a database that a release already uses."""
    db.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, NULL), (2, 3)")
    return make_settings(tmp_path)


def write(root, *statements: str, heads: tuple[str, ...] = ()) -> None:
    """One revision for each statement; `heads` gives their phases, expand where none is given."""
    revises = None
    for number, statement in enumerate(statements, 1):
        head = heads[number - 1] if heads else 'phase = "expand"'
        revisions.write(
            root, f"{number:04}", f"op.execute({statement!r})", revises=revises, head=head
        )
        revises = f"{number:04}"


def columns(db) -> set[str]:
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
    return {name for (name,) in db.execute(f"{query} AND NOT attisdropped")}


def entries(db) -> list[tuple]:
    return [(e.subject, e.allowed, e.reason) for e in ledger.entries(db)]


# Expand


def test_an_expand_revision_that_breaks_the_running_release_is_refused_before_anything(
    tmp_path, settings, db
):
    write(tmp_path, "CREATE TABLE n (a int)", "ALTER TABLE t DROP COLUMN b")
    with pytest.raises(Refused) as caught:
        up.up(settings)
    assert entries(db) == []
    assert db.execute("SELECT to_regclass('n')").fetchone() == (None,)
    (problem,) = caught.value.data["problems"]
    assert (problem["revision"], problem["rule"], problem["subject"]) == (
        "0002",
        "drop-column",
        "t.b",
    )
    assert problem["statement"] == "ALTER TABLE t DROP COLUMN b"


def test_every_statement_of_every_revision_is_named_with_why_and_the_way(tmp_path, settings):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b; TRUNCATE t", "DO $$ BEGIN END $$")
    with pytest.raises(Refused) as caught:
        up.up(settings)
    said = caught.value.found
    assert "3 changes" in said
    for part in ("drop-column: t.b", "truncate: t", "not-provable: Do", "42703", "instead: "):
        assert part in said
    assert "--allow drop-column --allow truncate --allow not-provable" in caught.value.next_step


def test_a_dry_run_refuses_the_same(tmp_path, settings):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b")
    with pytest.raises(Refused, match="drop-column"):
        up.preview(settings)


def test_sql_that_cannot_be_rendered_beforehand_is_not_proven(tmp_path, settings):
    revisions.write(
        tmp_path, "0001", 'op.get_bind().execute(sa.text("SELECT max(a) FROM t")).scalar_one()'
    )
    with pytest.raises(Refused, match="not-provable"):
        up.up(settings)
    assert up.up(settings, allow=["not-provable"], reason=WHY).version == "0001"


def test_what_is_allowed_is_applied_and_recorded_where_it_was_needed(tmp_path, settings, db):
    write(tmp_path, "CREATE TABLE n (a int)", "ALTER TABLE t DROP COLUMN b")
    up.up(settings, allow=["truncate", "drop-column"], reason=WHY)
    assert entries(db) == [("0001", None, None), ("0002", ["drop-column"], WHY)]
    assert columns(db) == {"a"}


def test_what_is_not_named_is_refused_beside_what_is_allowed(tmp_path, settings, db):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b", "TRUNCATE t")
    with pytest.raises(Refused) as caught:
        up.up(settings, allow=["drop-column"], reason=WHY)
    assert [p["rule"] for p in caught.value.data["problems"]] == ["truncate"]
    assert entries(db) == []


@pytest.mark.parametrize(
    ("allow", "reason", "said"),
    [
        (["drop-colum"], WHY, "did you mean drop-column"),
        (["add-column"], WHY, "unknown rule"),
        (["drop-column"], None, "--reason"),
        (["drop-column"], "  ", "--reason"),
    ],
)
def test_an_unknown_rule_or_no_reason_is_a_usage_error_even_with_nothing_pending(
    tmp_path, settings, allow, reason, said
):
    write(tmp_path, "CREATE TABLE n (a int)")
    up.up(settings)
    with pytest.raises(UsageError) as caught:
        up.up(settings, allow=allow, reason=reason)
    assert said in str(caught.value)


def test_a_contract_revision_may_hold_anything(tmp_path, settings, db):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b; DO $$ BEGIN END $$", heads=(CONTRACT,))
    up.up(settings)
    assert columns(db) == {"a"}


def test_a_revision_before_rules_from_may_hold_anything(tmp_path, make_settings, settings, db):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b", "CREATE TABLE n (a int)")
    adopted = make_settings(tmp_path, migrations={"rules_from": "0002"})
    assert up.up(adopted).version == "0002"
    assert entries(db)[0] == ("0001", None, None)


def test_on_a_database_that_holds_nothing_no_release_is_running(tmp_path, make_settings, db):
    write(tmp_path, "CREATE TABLE t (a int, b int)", "ALTER TABLE t DROP COLUMN b")
    assert up.up(make_settings(tmp_path)).version == "0002"
    assert [allowed for _, allowed, _ in entries(db)] == [None, None]


def test_once_a_revision_is_applied_a_release_may_be_running(tmp_path, make_settings, db):
    write(tmp_path, "CREATE TABLE t (a int, b int)", "ALTER TABLE t DROP COLUMN b")
    settings = make_settings(tmp_path)
    up.up(settings, to="0001")
    with pytest.raises(Refused, match="drop-column"):
        up.up(settings)


def test_a_backfill_that_fills_only_null_is_proven(tmp_path, settings, db):
    db.execute("ALTER TABLE t ADD PRIMARY KEY (a)")
    fill = 'from migrator import backfill\nbackfill("t", set={{"b": "a"}}{where}, max_active=None, max_lock_waiters=None)'
    revisions.write(tmp_path, "0001", fill.format(where=""))
    with pytest.raises(Refused, match="update-data"):
        up.up(settings)
    revisions.write(tmp_path, "0001", fill.format(where=', where="b IS NULL"'))
    up.up(settings)
    assert db.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [(1, 1), (2, 3)]


def test_the_command_prints_what_breaks_and_records_what_is_allowed(tmp_path, settings, db, cli):
    write(tmp_path, "ALTER TABLE t ADD COLUMN c int", "ALTER TABLE t DROP COLUMN b")
    refused = cli("up")
    assert refused.exit_code == 3
    assert "drop-column: t.b" in refused.stderr
    shown = cli("up", "--dry-run", "--allow", "drop-column", "--reason", WHY)
    assert "-- notice: add-column, t.c" in shown.stdout
    assert "-- allowed: drop-column, t.b" in shown.stdout
    assert entries(db) == []
    assert cli("up", "--allow", "drop-column", "--reason", WHY).exit_code == 0
    assert f"Revision 0002 (allowed drop-column: {WHY})" in cli("history").stdout
    document = json.loads(cli("--json", "history").stdout)
    assert document["entries"][0]["allowed"] == ["drop-column"]


# Contract


@pytest.fixture
def connected(database_url):
    """`connected("shop-api/1")` opens a session of that name; all end with the test."""
    opened = []

    def connect(name: str, **options: str) -> psycopg.Connection:
        opened.append(psycopg.connect(database_url, application_name=name, **options))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def shop(tmp_path, make_settings, settings):
    """The project with a release whose sessions name themselves, and one contract revision."""
    write(
        tmp_path,
        "CREATE TABLE n (a int)",
        "ALTER TABLE t DROP COLUMN b",
        heads=('phase = "expand"', CONTRACT),
    )
    return make_settings(
        tmp_path, release={"application": "shop-api", "version": "2", "watch_s": 0}
    )


def test_contract_is_refused_while_the_old_release_is_connected(shop, connected, db):
    old = connected("shop-api/1")
    connected("shop-api/2")
    with pytest.raises(Refused) as caught:
        up.up(shop)
    assert entries(db) == []
    assert [s["pid"] for s in caught.value.data["old"]] == [old.info.backend_pid]
    for part in ("0002", "  1: 1", f"pid {old.info.backend_pid} from 127.0.0.1", "role postgres"):
        assert part in caught.value.found
    assert "--phase expand" in caught.value.next_step


def test_expand_goes_on_while_the_old_release_is_connected(shop, connected):
    connected("shop-api/1")
    assert up.up(shop, phase="expand").version == "0001"


@pytest.mark.parametrize(
    "name", ["shop-api", "shop-api/", "shop-api/1 - 10.0.0.1:5000", "shop-api/20"]
)
def test_a_session_without_the_deployed_version_counts_as_old(shop, connected, name):
    connected(name)
    with pytest.raises(Refused, match="another version than 2"):
        up.up(shop)


@pytest.mark.parametrize(
    "name", ["shop-api/2", "shop-api/2 - 10.0.0.1:5000", "shop-api2/1", "psql", ""]
)
def test_sessions_of_the_deployed_version_and_of_others_are_in_nobodys_way(
    shop, connected, db, name
):
    connected(name)
    up.up(shop)
    assert columns(db) == {"a"}


def test_a_session_in_another_database_is_in_nobodys_way(shop, connected, servers):
    connected("shop-api/1", dbname="postgres")
    assert up.up(shop).version == "0002"


def test_the_old_release_is_seen_where_its_role_hides_its_state(
    shop, connected, role, database_url
):
    old = connected("shop-api/1")
    with psycopg.connect(database_url, user=role, autocommit=True) as conn:
        seen = release.look(conn, shop.release)
    (session,) = seen.old
    assert (session.pid, session.version, session.state) == (old.info.backend_pid, "1", None)
    assert "state hidden from us" in str(seen)


def test_allowed_it_goes_on_and_the_ledger_says_so(shop, connected, db):
    connected("shop-api/1")
    heard = []
    up.up(shop, allow=["old-release"], reason=WHY, progress=heard.append)
    assert entries(db) == [("0001", None, None), ("0002", ["old-release"], WHY)]
    (warned,) = [step for step in heard if isinstance(step, Warned)]
    assert "a session of shop-api with another version than 2" in warned.text


def test_an_expand_behind_the_contract_did_not_need_it(tmp_path, shop, connected, db):
    connected("shop-api/1")
    revisions.write(tmp_path, "0003", 'op.execute("CREATE TABLE m (a int)")', revises="0002")
    up.up(shop, allow=["old-release"], reason=WHY)
    assert entries(db)[1:] == [("0002", ["old-release"], WHY), ("0003", None, None)]


def test_allowed_and_not_needed_it_is_not_recorded(shop, db):
    up.up(shop, allow=["old-release"], reason=WHY)
    assert entries(db) == [("0001", None, None), ("0002", None, None)]


def test_an_old_session_that_comes_while_the_run_expands_stops_it_before_contract(
    shop, connected, db
):
    def progress(step):
        if isinstance(step, up.Started) and step.number == 2:
            connected("shop-api/1")

    with pytest.raises(Refused, match="revision 0002 was not applied") as caught:
        up.up(shop, progress=progress)
    assert caught.value.data["applied"] == ["0001"]
    assert columns(db) == {"a", "b"}


def test_a_pool_that_reconnects_within_the_window_is_seen(connected, settings):
    asked = []

    def pause(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            connected("shop-api/1")

    given = Release(application="shop-api", version="2", watch_s=1)
    with phase_check.looking(settings) as conn:
        assert len(release.watch(conn, given, pause=pause).old) == 1
        assert len(asked) == 3


def test_the_window_ends(database_url):
    asked = []
    given = Release(application="shop-api", version="2", watch_s=1)
    with psycopg.connect(database_url, autocommit=True) as conn:
        assert release.watch(conn, given, pause=asked.append).is_clear
    assert sum(asked) == 1


def test_sessions_whose_name_is_kept_from_us_are_no_proof(shop, monkeypatch):
    hidden = release._SESSIONS.replace("application_name,", "NULL AS application_name,")
    monkeypatch.setattr(release, "_SESSIONS", hidden)
    with pytest.raises(Refused, match="do not show us their application_name") as caught:
        up.up(shop)
    assert "pg_read_all_stats" in caught.value.expected


def test_without_an_application_contract_warns_once_and_goes_on(tmp_path, settings, cli, db):
    write(tmp_path, "ALTER TABLE t DROP COLUMN b", "TRUNCATE t", heads=(CONTRACT, CONTRACT))
    assert f"warning: {UNCHECKED}" in cli("up", "--dry-run").stdout
    done = cli("--json", "up")
    assert json.loads(done.stdout)["warnings"] == [UNCHECKED]
    assert done.stderr.count(UNCHECKED) == 1
    assert columns(db) == {"a"}


def test_an_application_without_a_version_is_a_settings_error_before_contract(
    tmp_path, make_settings, shop, db
):
    nameless = make_settings(tmp_path, release={"application": "shop-api"})
    with pytest.raises(SettingsError, match="no version is set"):
        up.up(nameless)
    assert entries(db) == []
    assert up.up(nameless, phase="expand").version == "0001"


def test_a_dry_run_shows_who_is_in_the_way_and_the_sql(shop, connected):
    connected("shop-api/1")
    _, (_, contract) = up.preview(shop)
    assert contract.sql == "ALTER TABLE t DROP COLUMN b;"
    assert "would be refused now: a session of shop-api" in contract.notes[0]


def test_an_expand_after_a_pending_contract_is_applied_in_the_files_order(tmp_path, settings, db):
    write(
        tmp_path,
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN b text",
        heads=(CONTRACT, 'phase = "expand"'),
    )
    assert up.up(settings, phase="expand").stopped_before.id == "0001"
    assert [done.revision for done in up.up(settings).applied] == ["0001", "0002"]


def test_every_rule_that_can_be_allowed_is_one_that_breaks():
    assert "old-release" in phase_check.ALLOWED
    assert "add-column" not in phase_check.ALLOWED
