"""Whatever hangs on a live table is there after the swap, and after the swap back."""

from __future__ import annotations

import threading
import uuid

import psycopg
import pytest

from migrator.errors import Busy, Refused
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import swap, swap_sql
from migrator.projections.move import Move, move_for
from tests import torture
from tests.torture import differences, projection


@pytest.fixture(params=["orders", 'Or"d er$1'])
def tortured(request, servers):
    """A live table with everything attached."""
    with torture.tortured(servers[0], request.param) as found:
        yield found


@pytest.fixture
def plain(servers):
    """A live table with nothing attached, and tables beside it."""
    with torture.tortured(servers[0], "orders", attach=False) as found:
        yield found


def done(found, text):
    """Run statements as the owner, who may not do everything."""
    for statement in found.filled(f"SET ROLE $OWNER; {text};\nRESET ROLE"):
        found.admin.execute(statement.encode())


def test_everything_attached_goes_through_seven_swaps_as_a_plain_owner(tortured):
    before, dumped = tortured.proof(), tortured.dump()
    swapped = tortured.cut_over(tortured.build())
    assert differences(before, tortured.proof()) == []
    assert tortured.dump() == dumped
    assert swapped.unvalidated == ()
    for _ in range(6):
        tortured.swap_back()
        assert differences(before, tortured.proof()) == []
        assert tortured.dump() == dumped


def test_the_proof_notices_every_single_loss(servers):
    with torture.tortured(servers[0], "orders") as found:
        before, unnoticed = found.proof(), []
        losses = found.filled(torture.LOSSES)
        for loss in losses:
            with found.admin.transaction(force_rollback=True):
                found.admin.execute(loss.encode())
                if not differences(before, found.proof()):
                    unnoticed.append(loss)
    assert len(losses) >= 50
    assert unnoticed == []


def test_what_is_changed_on_the_live_table_is_carried_back_as_well(plain):
    first = builds.find(plain.admin, "orders", ["live"])[0]
    done(plain, "ALTER TABLE $T SET (fillfactor = 50); ALTER TABLE $T ALTER note SET STATISTICS 7")
    plain.cut_over(plain.build())
    done(
        plain,
        """ALTER TABLE $T RESET (fillfactor);
        ALTER TABLE $T ALTER note SET STATISTICS -1;
        ALTER TABLE $T ALTER qty SET DEFAULT 3;
        CREATE VIEW app.later AS SELECT id FROM $T;
        CREATE STATISTICS app.stx ON qty, status FROM $T;
        CREATE INDEX late ON $T (qty)""",
    )
    before = plain.proof()
    plain.swap_back()
    assert builds.find(plain.admin, "orders", ["live"])[0].build == first.build
    assert differences(before, plain.proof()) == []


def test_what_was_taken_off_the_live_table_does_not_come_back(plain):
    done(
        plain,
        """CREATE TRIGGER t BEFORE UPDATE ON $T FOR EACH ROW EXECUTE FUNCTION app.touch();
        ALTER TABLE $T ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON $T USING (true);
        CREATE RULE r AS ON DELETE TO $T DO ALSO NOTHING;
        CREATE STATISTICS app.stx ON qty, status FROM $T;
        ALTER TABLE $T CLUSTER ON $PKEY""",
    )
    plain.cut_over(plain.build())
    done(
        plain,
        """DROP TRIGGER t ON $T; DROP POLICY p ON $T; DROP RULE r ON $T; DROP STATISTICS app.stx;
        ALTER TABLE $T DISABLE ROW LEVEL SECURITY; ALTER TABLE $T SET WITHOUT CLUSTER""",
    )
    before = plain.proof()
    plain.swap_back()
    assert differences(before, plain.proof()) == []


def test_the_archived_table_is_left_bare_and_shut(tortured):
    tortured.cut_over(tortured.build())
    found = tortured.admin.execute(
        """SELECT relrowsecurity, relforcerowsecurity,
                  (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),
                  (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
                  (SELECT count(*) FROM pg_rewrite WHERE ev_class = c.oid),
                  (SELECT count(*) FROM pg_publication_rel WHERE prrelid = c.oid)
           FROM pg_class c WHERE relnamespace = 'migrator_build_1'::regnamespace AND relkind = 'r'"""
    ).fetchone()
    assert found == (True, False, 0, 0, 0, 0)


def test_two_projections_with_a_view_and_a_foreign_key_between_them_move_at_once(plain):
    other = projection("others")
    plain.cut_over(plain.build(other))
    done(
        plain,
        """ALTER TABLE $T ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES app.others (id);
        CREATE VIEW app.both AS SELECT o.note, p.qty FROM $T o JOIN app.others p USING (id)""",
    )
    before = plain.proof()
    new = [plain.build(), plain.build(other)]
    old = [builds.find(plain.admin, n, ["live"])[0] for n in ("orders", "others")]
    moves = [Move(n, o) for n, o in zip(new, old, strict=True)]
    with plain.owner as conn:
        swapped = swap.swap(conn, plain.settings, moves, run=uuid.uuid4())
    assert len(swapped.entries) == 2
    assert differences(before, plain.proof()) == []


REFUSED = {
    "composite column": ("CREATE TABLE app.h (o $T)", "column o of table app.h"),
    "array of the row type": ("CREATE TABLE app.h (o $T[])", "column o of table app.h"),
    "domain": ("CREATE DOMAIN app.d AS $T", "type app.d"),
    "function that returns rows": (
        "CREATE FUNCTION app.f() RETURNS SETOF $T LANGUAGE plpgsql AS 'BEGIN END'",
        "function app.f(), which uses the row type",
    ),
    "function of a row": (
        "CREATE FUNCTION app.f($T) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "which uses the row type",
    ),
    "cast": ("CREATE CAST ($T AS text) WITH INOUT", "cast from app.orders to text"),
    "whole-row view": (
        "CREATE VIEW app.w AS SELECT o FROM $T o",
        "view app.w, which uses the row type",
    ),
    "inheritance": ("CREATE TABLE app.kid () INHERITS ($T)", "table app.kid inherits from it"),
    "parent": (
        "CREATE TABLE app.par (id bigint NOT NULL); ALTER TABLE $T INHERIT app.par",
        "the table inherits from app.par",
    ),
    "identity": (
        "ALTER TABLE $T ALTER id ADD GENERATED BY DEFAULT AS IDENTITY",
        "column id is an identity",
    ),
    "column by hand": ("ALTER TABLE $T ADD mine int", "column mine, added by hand"),
    "generated column": (
        "ALTER TABLE $T ADD more int GENERATED ALWAYS AS (qty + 1) STORED",
        "column more is generated",
    ),
    "regclass elsewhere": (
        "CREATE TABLE app.us (x oid DEFAULT 'app.orders'::regclass)",
        "default value for column x of table app.us",
    ),
    "check elsewhere": (
        "CREATE TABLE app.us (x oid CHECK (x <> 'app.orders'::regclass::oid))",
        "constraint us_x_check",
    ),
    "constraint trigger from it": (
        """CREATE CONSTRAINT TRIGGER c AFTER INSERT ON app.notes FROM $T FOR EACH ROW
        EXECUTE FUNCTION app.aud()""",
        "trigger c on table app.notes",
    ),
    "not logged": ("ALTER TABLE $T SET UNLOGGED", "the table is not logged"),
    "a stranger's view": (
        """CREATE ROLE $STRANGER; GRANT USAGE, CREATE ON SCHEMA rep TO $STRANGER;
        GRANT USAGE ON SCHEMA app TO $STRANGER; GRANT SELECT ON $T TO $STRANGER;
        SET ROLE $STRANGER; CREATE VIEW rep.sv AS SELECT id FROM $T; RESET ROLE""",
        "view rep.sv, which",
    ),
    "a stranger's grant": (
        """CREATE ROLE $STRANGER; GRANT USAGE ON SCHEMA app TO $STRANGER;
        GRANT SELECT ON $T TO $STRANGER WITH GRANT OPTION;
        SET ROLE $STRANGER; GRANT SELECT ON $T TO $LEAF; RESET ROLE""",
        "grants made by",
    ),
    "a stranger's publication": ("CREATE PUBLICATION $PUB FOR TABLE $T", "publication pub_"),
    "a stranger's foreign key": (
        """GRANT REFERENCES ON $T TO PUBLIC; CREATE TABLE app.theirs (o bigint REFERENCES $T)""",
        "foreign key theirs_o_fkey of table app.theirs",
    ),
    "a view in a schema shut to its owner": (
        """GRANT SELECT ON $T TO $OTHER; SET ROLE $OTHER; CREATE VIEW rep.rv AS SELECT id FROM $T;
        RESET ROLE; ALTER SCHEMA rep OWNER TO postgres""",
        "view rep.rv, whose owner",
    ),
    "invalid index": (
        """CREATE INDEX inv ON $T (qty);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.inv'::regclass""",
        "index app.inv, which is not valid",
    ),
    "extension": (
        """CREATE TRIGGER t BEFORE UPDATE ON $T FOR EACH ROW EXECUTE FUNCTION app.touch();
        ALTER TRIGGER t ON $T DEPENDS ON EXTENSION btree_gist""",
        "trigger t on table app.orders, which depends on extension",
    ),
    "a stranger's statistics": (
        "CREATE STATISTICS app.s ON qty, status FROM $T",
        "statistics app.s, which postgres owns",
    ),
    "statistics elsewhere": (
        "CREATE STATISTICS rep.s ON qty, status FROM $T",
        "statistics rep.s, in another schema",
    ),
    "foreign key with a trigger off": (
        "ALTER TABLE app.lines ADD FOREIGN KEY (order_id) REFERENCES $T; ALTER TABLE $T DISABLE TRIGGER ALL",
        "of which a trigger is not enabled",
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW app.m AS SELECT id FROM $T",
        "materialized view app.m",
    ),
}


def test_what_cannot_be_carried_is_refused_and_named_with_its_remedy(plain):
    missed = []
    incoming = plain.build()
    for name, (ddl, named) in REFUSED.items():
        for statement in plain.filled(f"BEGIN; {ddl}; SET LOCAL ROLE $OWNER"):
            plain.admin.execute(statement.encode())
        try:
            move_for(plain.admin, incoming)
            missed.append((name, "nothing"))
        except Refused as refused:
            if named not in " ".join(refused.data["attachments"]):
                missed.append((name, refused.data["attachments"]))
        plain.admin.execute("ROLLBACK")
    assert missed == []


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"columns": ("note",)}, "view app.v: its column note is not there any more"),
        ({"retyped": "qty"}, "view app.v: its column qty is text instead of integer"),
    ],
)
def test_a_shape_that_does_not_fit_a_view_is_refused_naming_view_and_column(plain, shape, said):
    done(plain, "CREATE VIEW app.v AS SELECT note, qty FROM $T")
    with pytest.raises(Refused) as refused:
        plain.cut_over(plain.build(projection("orders", **shape)))
    assert said in refused.value.data["attachments"][0]


def test_an_index_on_a_column_that_is_gone_stays_behind_and_that_is_said(plain):
    done(plain, "CREATE INDEX by_hand ON $T (note); CREATE INDEX kept ON $T (qty)")
    swapped = plain.cut_over(plain.build(projection("orders", columns=("note",))))
    assert "kept, which was added by hand, went along" in swapped.notes
    assert any("app.by_hand stayed behind: its column note" in n for n in swapped.notes)


def test_an_index_that_the_class_no_longer_has_does_not_go_along(plain):
    swapped = plain.cut_over(plain.build(projection("orders", unindexed=True)))
    assert swapped.notes == ()
    found = plain.admin.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'app'")
    assert "orders_updated_at_idx" not in {name for (name,) in found.fetchall()}


def test_a_check_by_hand_that_the_new_rows_break_is_refused_and_nothing_has_changed(plain):
    incoming = plain.build()
    done(
        plain,
        "DELETE FROM $T WHERE qty > 400; ALTER TABLE $T ADD CONSTRAINT few CHECK (qty <= 400)",
    )
    before = plain.proof()
    with pytest.raises(Refused, match=r"by hand does not hold on the new rows.*few"):
        plain.cut_over(incoming)
    assert differences(before, plain.proof()) == []


def test_rows_that_would_refer_to_nothing_are_counted_before_the_swap(plain):
    incoming = plain.build()
    done(plain, "ALTER TABLE app.lines ADD CONSTRAINT l FOREIGN KEY (order_id) REFERENCES $T (id)")
    plain.admin.execute(f"DELETE FROM {incoming.schema}.orders WHERE id > 498")
    with pytest.raises(Refused, match=r"2 rows of .*lines.* would refer to nothing"):
        plain.cut_over(incoming)


def test_a_snapshot_older_than_the_new_rows_is_waited_for_and_named(plain, servers):
    with psycopg.connect(plain.url, application_name="a report") as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM app.lines")
        incoming = plain.build()
        hasty = plain.with_deadline(0.2)
        with pytest.raises(Busy, match=r"began before the new rows were written.*\n.*a report"):
            hasty.cut_over(incoming)
        reader.rollback()
        plain.cut_over(incoming)


def test_a_swap_back_waits_for_no_snapshot(plain):
    # A transaction in any other database makes every snapshot seem as old as itself is.
    for statement in plain.filled("GRANT pg_read_all_stats TO $OWNER"):
        plain.admin.execute(statement.encode())
    incoming = plain.build()
    with psycopg.connect(plain.url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM app.lines")
        plain.cut_over(incoming)
        plain.with_deadline(0.2).swap_back()


def test_who_reads_and_writes_what_hangs_on_it_meets_no_error_while_it_is_swapped(plain):
    done(
        plain,
        """ALTER TABLE app.lines REPLICA IDENTITY FULL;
        CREATE VIEW app.v AS SELECT id, note FROM $T;
        CREATE FUNCTION app.f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM $T; END;
        ALTER TABLE app.lines ADD CONSTRAINT l FOREIGN KEY (order_id) REFERENCES $T (id)""",
    )
    plain.cut_over(plain.build())
    stop, errors, seen = threading.Event(), [], set()

    def work(*statements: str) -> None:
        with psycopg.connect(plain.url, autocommit=True) as conn:
            while not stop.is_set():
                try:
                    for statement in statements:
                        found = conn.execute(statement.encode())
                        if found.description:
                            seen.add(found.fetchone())
                except psycopg.Error as exc:
                    errors.append(exc)

    workers = [
        threading.Thread(target=work, args=statements)
        for statements in (
            ("SELECT count(*) FROM app.v", "SELECT app.f()"),
            ("INSERT INTO app.lines VALUES (1, 2)", "DELETE FROM app.lines WHERE n = 2"),
        )
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in range(4):
            plain.swap_back()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert errors == []
    assert seen == {(500,)}


def test_the_dry_run_of_a_swap_back_prints_every_statement(tortured):
    tortured.cut_over(tortured.build())
    with connect(tortured.settings, "plan") as conn:
        conn.read_only = True
        name = tortured.registered.name
        (live,) = builds.find(conn, name, ["live"])
        (archived,) = builds.find(conn, name, ["archived"])
        script = swap_sql.script(conn, tortured.settings, [Move(archived, live, undoes=1)])
    assert script[0] == "BEGIN"
    for said in (
        "CREATE POLICY",
        "CREATE OR REPLACE VIEW rep.rv",
        "ADD CONSTRAINT lines_fk",
        "VALIDATE",
    ):
        assert any(said in statement for statement in script)


CHANGES = (
    "CREATE VIEW app.late AS SELECT id FROM $T",
    "CREATE OR REPLACE VIEW app.v AS SELECT id, note, qty FROM $T",
    "DROP VIEW app.v",
    "CREATE FUNCTION app.late() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM $T; END",
    "GRANT SELECT ON $T TO $READ",
    "GRANT SELECT (note) ON $T TO $READ",
    "CREATE POLICY late ON app.lines USING (EXISTS (SELECT FROM $T WHERE id = order_id))",
)


def test_what_changes_between_the_look_and_the_locks_is_carried_as_well(plain, monkeypatch):
    done(plain, "CREATE VIEW app.v AS SELECT id, note FROM $T")
    plain.cut_over(plain.build())
    lock_out = swap._lock_out
    for change in CHANGES:
        wanted = []

        def late(*args, change=change, wanted=wanted):
            if not wanted:
                done(plain, change)
                wanted.append(plain.proof())
            lock_out(*args)

        monkeypatch.setattr(swap, "_lock_out", late)
        assert plain.swap_back().attempts == 2, change
        assert differences(wanted[0], plain.proof()) == [], change
