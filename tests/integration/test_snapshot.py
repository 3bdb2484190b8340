"""What a snapshot sees; every change is rolled back, so that all tests share one database."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from psycopg import sql

from migrator.postgres import snapshot

SCHEMA = """
CREATE SCHEMA app;
CREATE EXTENSION pg_trgm;
CREATE TYPE app.mood AS ENUM ('sad', 'ok');
CREATE DOMAIN app.positive AS int NOT NULL DEFAULT 1 CHECK (value > 0);
CREATE TYPE app.pair AS (a int, b text);
CREATE TYPE app.span AS RANGE (subtype = float8);
CREATE TABLE app.parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m app.mood);
CREATE TABLE app.t (
    id serial PRIMARY KEY, p bigint REFERENCES app.parent, n int NOT NULL DEFAULT 7,
    c text COLLATE "C" CHECK (c <> ''), twice int GENERATED ALWAYS AS (n * 2) STORED,
    d app.positive, UNIQUE (n, c));
CREATE INDEX t_c ON app.t (lower(c)) WHERE n > 0;
CREATE INDEX parent_m ON app.parent (m);
CREATE VIEW app.v AS SELECT id, c FROM app.t;
CREATE MATERIALIZED VIEW app.mv AS SELECT count(*) AS n FROM app.t;
CREATE FUNCTION app.f(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1';
CREATE PROCEDURE app.p() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE RULE quiet AS ON DELETE TO app.parent DO INSTEAD NOTHING;
ALTER TABLE app.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON app.t FOR SELECT USING (n > 0);
CREATE STATISTICS app.s ON n, c FROM app.t;
CREATE SEQUENCE app.seq INCREMENT 2;
CREATE TABLE app.log (day date, x int CHECK (x > 0)) PARTITION BY RANGE (day);
CREATE INDEX log_x ON app.log (x);
CREATE TABLE app.log_1 PARTITION OF app.log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FUNCTION app.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT $1 = $2';
CREATE OPERATOR app.=== (leftarg = int, rightarg = int, function = app.same);
CREATE OPERATOR CLASS app.ints FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
CREATE TYPE app.word;
CREATE FUNCTION app.word_in(cstring) RETURNS app.word LANGUAGE internal STRICT AS 'textin';
CREATE FUNCTION app.word_out(app.word) RETURNS cstring LANGUAGE internal STRICT AS 'textout';
CREATE TYPE app.word (input = app.word_in, output = app.word_out);
CREATE TYPE app.shell;
CREATE CAST (app.mood AS text) WITH INOUT AS ASSIGNMENT;
CREATE TYPE app.triple AS (a int, b int, c int);
CREATE TRANSFORM FOR app.triple LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
CREATE COLLATION app.german (locale = 'C');
CREATE CONVERSION app.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE ACCESS METHOD hashish TYPE INDEX HANDLER hashhandler;
CREATE LANGUAGE plours HANDLER plpgsql_call_handler;
CREATE TEXT SEARCH PARSER app.prs (start = prsd_start, gettoken = prsd_nexttoken,
    end = prsd_end, lextypes = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE app.tmpl (lexize = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY app.dict (template = simple);
CREATE TEXT SEARCH CONFIGURATION app.conf (COPY = simple);
CREATE FUNCTION app.heard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER heard ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION app.heard();
CREATE FOREIGN DATA WRAPPER fdw OPTIONS (debug 'on');
CREATE SERVER away FOREIGN DATA WRAPPER fdw OPTIONS (host 'h', password 's3cret');
CREATE USER MAPPING FOR CURRENT_USER SERVER away OPTIONS ("user" 'u', password 's3cret');
CREATE FOREIGN TABLE app.far (id int OPTIONS (col 'a')) SERVER away
    OPTIONS (uri 'https://u:s3cret@h/x');
CREATE PUBLICATION pub FOR TABLE app.t (id, n) WHERE (n > 0);
CREATE PUBLICATION wide FOR TABLES IN SCHEMA public;
COMMENT ON COLUMN app.t.n IS 'how many';
COMMENT ON TABLE app.t IS 'things';
"""


@pytest.fixture(scope="module")
def shop(servers):
    """A session on a database with one of everything."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex}")
    with psycopg.connect(servers[0], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
        with psycopg.connect(servers[0].rpartition("/")[0] + f"/{name.as_string()[1:-1]}") as db:
            db.execute(SCHEMA)
            db.commit()
            yield db
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def db(shop):
    yield shop
    shop.rollback()


@pytest.fixture
def before(db):
    return snapshot.read(db)


def changed(db, before, ddl, **options):
    db.execute(ddl)
    found = snapshot.differences(snapshot.read(db), before, **options)
    return [(d.kind, d.name, d.facet, d.live, d.expected) for d in found]


def test_nothing_differs_where_nothing_was_changed(db, before):
    assert len(before) > 40
    assert changed(db, before, "INSERT INTO app.t (c) VALUES ('x')") == []


@pytest.mark.parametrize(
    ("ddl", "expected"),
    [
        ("ALTER TABLE app.parent ALTER m TYPE text", [("type", "text", "app.mood")]),
        ("ALTER TABLE app.t ALTER n DROP NOT NULL", [("null", "nullable", "not null")]),
        ("ALTER TABLE app.t ALTER n SET DEFAULT 8", [("default", "8", "7")]),
        ("ALTER TABLE app.t ALTER n DROP DEFAULT", [("default", None, "7")]),
        ("COMMENT ON COLUMN app.t.n IS NULL", [("comment", None, "how many")]),
        ("COMMENT ON TABLE app.t IS 'x'", [("comment", "x", "things")]),
        (
            "ALTER TABLE app.parent ALTER id SET GENERATED BY DEFAULT",
            [("identity", "by default", "always")],
        ),
        ("ALTER TABLE app.t DISABLE ROW LEVEL SECURITY", [("row security", None, "enabled")]),
        ("ALTER TABLE app.t REPLICA IDENTITY FULL", [("replica identity", "full", None)]),
        ("ALTER TABLE app.parent SET (fillfactor = 70)", [("options", ["fillfactor=70"], None)]),
        ("ALTER TABLE app.t DISABLE TRIGGER touch", [("enabled", "no", "yes")]),
        (
            "ALTER TYPE app.mood ADD VALUE 'glad'",
            [("labels", ["sad", "ok", "glad"], ["sad", "ok"])],
        ),
        ("ALTER SEQUENCE app.seq INCREMENT 3", [("increment", 3, 2)]),
        ("ALTER POLICY mine ON app.t USING (n > 1)", [("using", "(n > 1)", "(n > 0)")]),
        ("ALTER DOMAIN app.positive DROP NOT NULL", [("null", None, "not null")]),
        ("ALTER TABLE app.log_1 SET UNLOGGED", [("persistence", "unlogged", None)]),
        ("ALTER SEQUENCE app.seq SET UNLOGGED", [("persistence", "unlogged", None)]),
        ("ALTER TABLE app.t ALTER c SET STORAGE EXTERNAL", [("storage", "e", None)]),
        ("ALTER TABLE app.t ALTER c SET COMPRESSION pglz", [("compression", "p", None)]),
        ("ALTER TABLE app.t ALTER n SET STATISTICS 7", [("statistics target", 7, None)]),
        ("ALTER TABLE app.t ALTER n SET (n_distinct = 5)", [("options", ["n_distinct=5"], None)]),
        (
            "ALTER TABLE app.t SET (toast.autovacuum_enabled = off)",
            [("toast options", ["autovacuum_enabled=off"], None)],
        ),
        ("ALTER TABLE app.parent CLUSTER ON parent_m", [("clustered on", True, None)]),
        ("ALTER TABLE app.t CLUSTER ON t_pkey", [("clustered on", True, None)]),
        (
            "ALTER OPERATOR app.=== (int, int) SET (restrict = eqsel)",
            [("restrict", "eqsel", None)],
        ),
        (
            """ALTER OPERATOR FAMILY app.ints USING hash
               ADD FUNCTION 2 (int) hashint4extended(int, bigint)""",
            [
                (
                    "functions",
                    ["1 hashint4(integer)", "2 hashint4extended(integer,bigint)"],
                    ["1 hashint4(integer)"],
                )
            ],
        ),
        (
            "DROP CAST (app.mood AS text); CREATE CAST (app.mood AS text) WITH INOUT",
            [("context", "explicit", "assignment")],
        ),
        (
            "ALTER TEXT SEARCH DICTIONARY app.dict (accept = false)",
            [("options", "accept = 'false'", None)],
        ),
        ("ALTER EVENT TRIGGER heard DISABLE", [("enabled", "no", "yes")]),
        (
            "ALTER FOREIGN DATA WRAPPER fdw OPTIONS (SET debug 'off')",
            [("options", ["debug=off"], ["debug=on"])],
        ),
        (
            "ALTER SERVER away OPTIONS (SET host 'g')",
            [("options", ["host=g", "password=***"], ["host=h", "password=***"])],
        ),
        (
            "ALTER USER MAPPING FOR CURRENT_USER SERVER away OPTIONS (DROP password)",
            [("option names", ["user"], ["password", "user"])],
        ),
        (
            "ALTER FOREIGN TABLE app.far OPTIONS (SET uri 'https://u:s3cret@g/x')",
            [("options", ["uri=https://***@g/x"], ["uri=https://***@h/x"])],
        ),
        (
            "ALTER FOREIGN TABLE app.far ALTER id OPTIONS (SET col 'b')",
            [("options", ["col=b"], ["col=a"])],
        ),
        (
            "ALTER PUBLICATION pub SET TABLE app.t (id) WHERE (id > 1)",
            [("tables", ["app.t (id) WHERE (id > 1)"], ["app.t (id, n) WHERE (n > 0)"])],
        ),
        (
            "ALTER PUBLICATION wide DROP TABLES IN SCHEMA public",
            [("schemas", None, ["public"])],
        ),
        (
            "ALTER PUBLICATION pub SET (publish = 'insert, update')",
            [("pubdelete", False, True), ("pubtruncate", False, True)],
        ),
        ("COMMENT ON EVENT TRIGGER heard IS 'x'", [("comment", "x", None)]),
    ],
)
def test_a_changed_facet_is_told_with_both_values(db, before, ddl, expected):
    assert [found[2:] for found in changed(db, before, ddl)] == expected


# What goes with an object and is not a part of it.
FOLLOWS = (
    "app.log_x",
    "app.log.log_x_check",
    "app.word_in(cstring)",
    "app.word_out(app.word)",
    "app.far",
    "app.ints USING hash",
)


@pytest.mark.parametrize(
    ("ddl", "kind", "name"),
    [
        ("DROP INDEX app.t_c", "index", "app.t_c"),
        ("DROP VIEW app.v", "view", "app.v"),
        ("DROP MATERIALIZED VIEW app.mv", "materialized view", "app.mv"),
        ("DROP FUNCTION app.f", "function", "app.f(integer)"),
        ("DROP PROCEDURE app.p", "procedure", "app.p()"),
        ("DROP AGGREGATE app.total(int)", "aggregate", "app.total(integer)"),
        ("DROP TRIGGER touch ON app.t", "trigger", "app.t.touch"),
        ("DROP RULE quiet ON app.parent", "rule", "app.parent.quiet"),
        ("DROP POLICY mine ON app.t", "policy", "app.t.mine"),
        ("DROP STATISTICS app.s", "statistics", "app.s"),
        ("DROP SEQUENCE app.seq", "sequence", "app.seq"),
        ("DROP TYPE app.pair", "type", "app.pair"),
        ("DROP TYPE app.span", "type", "app.span"),
        ("DROP EXTENSION pg_trgm", "extension", "pg_trgm"),
        ("ALTER TABLE app.t DROP CONSTRAINT t_p_fkey", "constraint", "app.t.t_p_fkey"),
        ("ALTER TABLE app.t DROP CONSTRAINT t_n_c_key", "constraint", "app.t.t_n_c_key"),
        ("ALTER TABLE app.log DROP x", "column", "app.log.x"),
        ("DROP TABLE app.log_1", "table", "app.log_1"),
        ("DROP OPERATOR app.=== (int, int)", "operator", "app.===(integer,integer)"),
        ("DROP OPERATOR FAMILY app.ints USING hash", "operator class", "app.ints USING hash"),
        ("DROP TYPE app.shell", "type", "app.shell"),
        ("DROP TYPE app.word CASCADE", "type", "app.word"),
        ("DROP CAST (app.mood AS text)", "cast", "app.mood AS text"),
        ("DROP TRANSFORM FOR app.triple LANGUAGE sql", "transform", "app.triple LANGUAGE sql"),
        ("DROP COLLATION app.german", "collation", "app.german"),
        ("DROP CONVERSION app.conv", "conversion", "app.conv"),
        ("DROP ACCESS METHOD hashish", "access method", "hashish"),
        ("DROP LANGUAGE plours", "language", "plours"),
        ("DROP TEXT SEARCH PARSER app.prs", "text search parser", "app.prs"),
        ("DROP TEXT SEARCH TEMPLATE app.tmpl", "text search template", "app.tmpl"),
        ("DROP TEXT SEARCH DICTIONARY app.dict", "text search dictionary", "app.dict"),
        ("DROP TEXT SEARCH CONFIGURATION app.conf", "text search configuration", "app.conf"),
        ("DROP EVENT TRIGGER heard", "event trigger", "heard"),
        ("DROP FOREIGN TABLE app.far", "foreign table", "app.far"),
        ("DROP USER MAPPING FOR CURRENT_USER SERVER away", "user mapping", "postgres SERVER away"),
        ("DROP FOREIGN DATA WRAPPER fdw CASCADE", "foreign data wrapper", "fdw"),
        ("DROP PUBLICATION pub", "publication", "pub"),
    ],
)
def test_what_is_gone_is_told_once(db, before, ddl, kind, name):
    found = changed(db, before, ddl)
    found = [d for d in found if d[:2] == (kind, name) or d[1] not in FOLLOWS]
    assert [d[:3] for d in found] == [(kind, name, None)]
    assert found[0][3] is None
    assert found[0][4] is not None


def test_no_secret_of_a_foreign_object_is_read(db):
    assert "s3cret" not in repr(snapshot.read(db))


def test_a_publication_of_a_table_that_is_left_out_says_nothing_of_it(db, before):
    db.execute("CREATE TABLE app.live (id int); ALTER PUBLICATION pub ADD TABLE app.live")
    assert snapshot.read(db, left_out=["app.live"]) == before


def test_parts_of_a_table_that_is_gone_are_not_named_apart(db, before):
    found = changed(db, before, "DROP TABLE app.parent CASCADE")
    assert [d[:2] for d in found] == [("constraint", "app.t.t_p_fkey"), ("table", "app.parent")]


def test_what_is_more_is_told_as_well(db, before):
    ((kind, name, facet, live, expected),) = changed(db, before, "CREATE TABLE app.more (a int)")
    assert (kind, name, facet, expected) == ("table", "app.more", None, None)
    assert live is not None


def test_a_constraint_that_is_not_validated_differs_by_that_alone(db, before):
    ddl = """ALTER TABLE app.t DROP CONSTRAINT t_c_check;
             ALTER TABLE app.t ADD CONSTRAINT t_c_check CHECK (c <> '') NOT VALID"""
    assert changed(db, before, ddl) == [("constraint", "app.t.t_c_check", "validated", False, True)]


def test_owner_and_grants_count_only_where_they_are_asked_for(db, before):
    ddl = "GRANT SELECT ON app.t TO pg_monitor; ALTER FUNCTION app.f OWNER TO pg_monitor"
    assert changed(db, before, ddl) == []
    found = changed(db, before, "SELECT 1", ignoring=())
    assert {(d[1], d[2]) for d in found} == {
        ("app.t", "grants"),
        ("app.f(integer)", "owner"),
        ("app.f(integer)", "grants"),
    }


def test_tables_that_are_left_out_are_left_out_with_all_their_parts(db, before):
    db.execute('CREATE TABLE "Odd" (id serial PRIMARY KEY, a int); CREATE INDEX ON "Odd" (a)')
    assert snapshot.read(db, left_out=['public."Odd"']) == before


def test_a_snapshot_leaves_the_search_path_as_it_was(db):
    with db.transaction():
        db.execute("SET LOCAL search_path = app, public")
        snapshot.read(db)
        assert db.execute("SHOW search_path").fetchone() == ("app, public",)
