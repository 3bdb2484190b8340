"""The table of locks that the lint rules stand on is what a server really does."""

from __future__ import annotations

import threading
import time
import uuid

import psycopg
import pytest
from psycopg import sql

from migrator.migrations.lint.locks import Mode, locks
from migrator.migrations.lint.parse import parse

SETUP = """
CREATE TABLE parent (id bigint PRIMARY KEY, n int);
CREATE TABLE t (
    id bigint NOT NULL, a int CHECK (a > 0), b text, parent_id bigint,
    CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES parent, CONSTRAINT c CHECK (id > 0) NOT VALID
);
CREATE UNIQUE INDEX t_id ON t (id);
CREATE INDEX t_a ON t (a);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER trig BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE POLICY pol ON t USING (true);
CREATE RULE r AS ON DELETE TO parent DO NOTHING;
CREATE MATERIALIZED VIEW mv AS SELECT id FROM t;
CREATE UNIQUE INDEX mv_id ON mv (id);
CREATE VIEW v AS SELECT a FROM t;
CREATE SEQUENCE seq;
CREATE TABLE parted (id int, n int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10);
CREATE TABLE loose (id int, n int);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE heir (id bigint NOT NULL, n int);
CREATE SCHEMA other;
CREATE TABLE other.t (id int, "Odd name" int);
CREATE PUBLICATION pub FOR TABLE parent;
"""

# Each runs in a transaction that is rolled back.
IN_TRANSACTION = """
SELECT a FROM t
SELECT a FROM t WHERE id IN (SELECT id FROM parent) FOR UPDATE
WITH parent AS (SELECT 1 AS id) SELECT id FROM parent
WITH gone AS (DELETE FROM t RETURNING id) SELECT n FROM parent JOIN gone USING (id)
INSERT INTO t (id) SELECT id FROM parent
INSERT INTO t (id) VALUES (1)
UPDATE t SET a = n FROM parent WHERE parent.id = t.parent_id
DELETE FROM t USING parent WHERE parent.id = t.parent_id
MERGE INTO t USING parent ON parent.id = t.id WHEN MATCHED THEN DELETE
CREATE TABLE copied AS SELECT a FROM t
SELECT a INTO copied FROM t
CREATE VIEW v2 AS SELECT a FROM t
EXPLAIN SELECT a FROM t
CREATE INDEX i ON t (b)
CREATE UNIQUE INDEX i ON other.t ("Odd name")
DROP INDEX t_a
REINDEX TABLE t
REINDEX INDEX t_a
CREATE TRIGGER trig2 AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()
DROP TRIGGER trig ON t
DROP TRIGGER IF EXISTS trig ON public.t
CREATE RULE r2 AS ON DELETE TO t DO INSTEAD NOTHING
DROP RULE r ON parent
CREATE POLICY p2 ON t USING (true)
ALTER POLICY pol ON t USING (false)
DROP POLICY pol ON t
TRUNCATE t
TRUNCATE t, other.t
LOCK TABLE t
LOCK TABLE t, other.t IN SHARE MODE
LOCK TABLE t IN ACCESS SHARE MODE
LOCK TABLE t IN ROW SHARE MODE
LOCK TABLE t IN ROW EXCLUSIVE MODE
LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE
LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE
LOCK TABLE t IN EXCLUSIVE MODE
REFRESH MATERIALIZED VIEW mv
REFRESH MATERIALIZED VIEW CONCURRENTLY mv
CLUSTER t USING t_id
ANALYZE t
COMMENT ON TABLE t IS 'x'
COMMENT ON COLUMN other.t."Odd name" IS 'x'
CREATE STATISTICS s ON a, id FROM t
CREATE PUBLICATION p2 FOR TABLE t, other.t
ALTER PUBLICATION pub ADD TABLE t
ALTER SEQUENCE seq RESTART
DROP SEQUENCE seq
DROP TABLE loose
DROP TABLE loose, other.t
DROP VIEW v
DROP MATERIALIZED VIEW mv
COPY t TO STDOUT
CREATE TABLE n (id int, parent_id bigint REFERENCES parent)
CREATE TABLE n (id int, parent_id bigint, FOREIGN KEY (parent_id) REFERENCES parent)
CREATE TABLE n (LIKE t)
CREATE TABLE n (x int) INHERITS (parent)
CREATE TABLE n PARTITION OF parted FOR VALUES FROM (10) TO (20)
ALTER TABLE t ADD COLUMN x int
ALTER TABLE t ADD COLUMN x bigint REFERENCES parent
ALTER TABLE t DROP COLUMN b
ALTER TABLE t ALTER COLUMN b TYPE varchar(9)
ALTER TABLE t ALTER COLUMN a SET NOT NULL
ALTER TABLE t ALTER COLUMN id DROP NOT NULL
ALTER TABLE t ALTER COLUMN a SET DEFAULT 1
ALTER TABLE t ALTER COLUMN a SET STATISTICS 100
ALTER TABLE t ALTER COLUMN a SET (n_distinct = 5)
ALTER TABLE t ALTER COLUMN a RESET (n_distinct)
ALTER TABLE t ALTER COLUMN b SET STORAGE EXTERNAL
ALTER TABLE t ALTER COLUMN b SET COMPRESSION pglz
ALTER TABLE t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY
ALTER TABLE t ADD CONSTRAINT k CHECK (a > 1)
ALTER TABLE t ADD CONSTRAINT k CHECK (a > 1) NOT VALID
ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)
ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY USING INDEX t_id
ALTER TABLE t ADD CONSTRAINT k EXCLUDE USING btree (a WITH =)
ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES parent NOT VALID
ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES parent
ALTER TABLE t VALIDATE CONSTRAINT c
ALTER TABLE t VALIDATE CONSTRAINT c, DROP COLUMN b
ALTER TABLE t DROP CONSTRAINT c
ALTER TABLE t ALTER CONSTRAINT fk DEFERRABLE
ALTER TABLE t ENABLE TRIGGER trig
ALTER TABLE t ENABLE ALWAYS TRIGGER trig
ALTER TABLE t ENABLE REPLICA TRIGGER trig
ALTER TABLE t DISABLE TRIGGER trig
ALTER TABLE t DISABLE TRIGGER ALL
ALTER TABLE t ENABLE TRIGGER ALL
ALTER TABLE t DISABLE TRIGGER USER
ALTER TABLE t ENABLE TRIGGER USER
ALTER TABLE parent DISABLE RULE r
ALTER TABLE t ENABLE ROW LEVEL SECURITY
ALTER TABLE t FORCE ROW LEVEL SECURITY
ALTER TABLE t CLUSTER ON t_id
ALTER TABLE t SET WITHOUT CLUSTER
ALTER TABLE t SET UNLOGGED
ALTER TABLE t SET LOGGED
ALTER TABLE t SET TABLESPACE pg_default
ALTER TABLE t SET ACCESS METHOD heap
ALTER TABLE t SET (fillfactor = 70, autovacuum_enabled = off)
ALTER TABLE t SET (toast_tuple_target = 200)
ALTER TABLE t SET (parallel_workers = 2)
ALTER TABLE t SET (user_catalog_table = true)
ALTER TABLE t RESET (fillfactor)
ALTER TABLE t REPLICA IDENTITY FULL
ALTER TABLE t OWNER TO CURRENT_USER
ALTER TABLE t RENAME COLUMN a TO c2
ALTER TABLE t RENAME CONSTRAINT c TO c2
ALTER TABLE t RENAME TO t2
ALTER TABLE loose SET SCHEMA other
ALTER INDEX t_a RENAME TO t_b
ALTER INDEX t_a SET (fillfactor = 80)
ALTER VIEW v RENAME TO v2
ALTER TRIGGER trig ON t RENAME TO trig2
ALTER POLICY pol ON t RENAME TO pol2
ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (10) TO (20)
ALTER TABLE parted DETACH PARTITION parted_1
ALTER TABLE heir INHERIT parent
ALTER TABLE child NO INHERIT parent
""".strip().splitlines()

# Each cannot run in a transaction, so it is caught while it waits for a lock on `t`.
OUTSIDE = [
    ("CREATE INDEX CONCURRENTLY i ON t (b)", "t"),
    ("REINDEX TABLE CONCURRENTLY t", "t"),
    ("DROP INDEX CONCURRENTLY t_a", "t_a"),
    ("VACUUM t", "t"),
    ("VACUUM (FULL) t", "t"),
    ("ALTER TABLE parted DETACH PARTITION parted_1 CONCURRENTLY", "parted"),
]

# What a statement locks beside what it names.
NOT_NAMED = {"t_a", "t_id", "mv_id", "parent_pkey"}
TABLE_NOT_NAMED = ("DROP INDEX", "REINDEX INDEX")

OURS = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'other')
"""
HELD = "SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = ANY (%s)"
WAITED = """
SELECT l.mode FROM pg_locks l WHERE NOT l.granted AND l.relation = %s::regclass
"""


@pytest.fixture(scope="module")
def url(servers):
    name = f"locks_{uuid.uuid4().hex}"
    with psycopg.connect(servers[0], autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made = servers[0].rpartition("/")[0] + f"/{name}"
        with psycopg.connect(made, autocommit=True) as conn:
            conn.execute(SETUP)
        yield made
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def told(statement: str) -> dict[str, Mode]:
    (parsed,) = parse(statement).statements
    return {lock.table.removeprefix("public."): lock.mode for lock in locks(parsed.node)}


def mode(name: str) -> Mode:
    """`ShareRowExclusiveLock` as our mode."""
    return next(each for each in Mode if name == each.name.title().replace("_", "") + "Lock")


def really(url: str, statement: str) -> dict[str, Mode]:
    """The strongest lock held on each relation after the statement, by its name before."""
    with psycopg.connect(url) as conn:
        names = dict(conn.execute(OURS).fetchall())
        conn.rollback()
        if statement.startswith("COPY"):
            with conn.cursor().copy(statement) as copy:
                list(copy)
        else:
            conn.execute(statement)
        found: dict[str, Mode] = {}
        for relation, held in conn.execute(HELD, [list(names)]).fetchall():
            name = names[relation]
            found[name] = max(found.get(name, Mode.ACCESS_SHARE), mode(held))
        conn.rollback()
        return found


@pytest.mark.parametrize("statement", IN_TRANSACTION)
def test_a_statement_takes_the_locks_that_the_table_tells(url, statement):
    expected, found = told(statement), really(url, statement)
    assert {name: found.get(name) for name in expected} == expected
    if statement.startswith(TABLE_NOT_NAMED):
        del found["t"]
    blocking = {n: m for n, m in found.items() if m > Mode.ACCESS_SHARE and n not in NOT_NAMED}
    assert blocking.items() <= expected.items()


@pytest.mark.parametrize(("statement", "relation"), OUTSIDE)
def test_a_statement_outside_a_transaction_waits_for_that_lock(url, statement, relation):
    """Another session holds the table, so the request stands in pg_locks until it is cancelled."""
    of = relation if relation != "t_a" else "t"
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as runner:
        holder.execute(
            sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(of))
        )
        running = threading.Thread(target=_until_cancelled, args=(runner, statement))
        running.start()
        try:
            found = _waited(url, of)
        finally:
            runner.cancel()
            running.join()
            holder.rollback()
    assert found == told(statement)[relation]


def _until_cancelled(conn, statement):
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute(statement)


def _waited(url: str, relation: str) -> Mode:
    deadline = time.monotonic() + 10
    with psycopg.connect(url, autocommit=True) as conn:
        while time.monotonic() < deadline:
            if row := conn.execute(WAITED, [relation]).fetchone():
                return mode(row[0])
    raise AssertionError(f"nobody waits for {relation}")
