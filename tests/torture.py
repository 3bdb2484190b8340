"""A projection's live table with everything attached that a table can have, and a proof that nothing is lost.

No Kafka: its builds are filled by SQL, since what is tried is the swap.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Projection, on
from migrator.kafka.topics import PartitionRange, TopicRange
from migrator.postgres import ledger, snapshot
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import swap
from migrator.projections.move import Move, move_for
from migrator.projections.registry import Registered
from migrator.sandbox import client_program
from migrator.settings import Settings, load


def projection(
    name: str, *, columns: tuple[str, ...] = (), retyped: str = "", unindexed: bool = False
) -> Registered:
    """The projection's definition; without `columns`, and with one `retyped`, for changed shapes."""
    fields: dict[str, tuple[Any, Any]] = {
        "id": (int, mapped_column(sa.BigInteger, primary_key=True)),
        "cust_id": (int, mapped_column(sa.BigInteger)),
        "parent_id": (int | None, mapped_column(sa.BigInteger)),
        "ser": (int | None, mapped_column(sa.Integer)),
        "amount": (Decimal, mapped_column(sa.Numeric(14, 2))),
        "qty": (int, mapped_column(sa.Integer)),
        "status": (str, mapped_column(sa.Text)),
        "doc": (dict[str, Any], mapped_column(postgresql.JSONB)),
        "note": (str | None, mapped_column(sa.Text, comment="what was said")),
        "valid": (Any, mapped_column(postgresql.TSTZRANGE, nullable=True)),
        "rk": (uuid.UUID, mapped_column(sa.Uuid, unique=True)),
        "updated_at": (Any, mapped_column(sa.DateTime(timezone=True), index=not unindexed)),
    }
    if retyped:
        fields[retyped] = (str, mapped_column(sa.Text))
    kept = {n: f for n, f in fields.items() if n not in columns}

    class Made(Event):
        x: int

    def made(self: Any, event: Made) -> None:
        self.qty = event.x

    body = {
        "__tablename__": name,
        "__annotations__": {n: Mapped[annotation] for n, (annotation, _) in kept.items()},
        **{n: column for n, (_, column) in kept.items()},
        "made": on(Made)(made),
        "__table_args__": (sa.CheckConstraint("amount >= 0", name="amount_pos"),),
        "__module__": __name__,
    }
    made.__annotations__ = {}
    cls = type("Order", (Projection,), body, topic="orders")
    return Registered(cls.__definition__, f"hash of {name} {columns} {retyped} {unindexed}", Path())


@dataclass
class Tortured:
    """A database with the table, its owner's settings, and a superuser's session to look on."""

    settings: Settings
    registered: Registered
    admin: psycopg.Connection[tuple[Any, ...]]
    url: str
    words: dict[str, str]
    last: int = 0

    def filled(self, text: str) -> list[str]:
        """The statements of a text, with this database's names in the place of its words."""
        said = re.compile("|".join(map(re.escape, sorted(self.words, key=len, reverse=True))))
        statements = [each.strip() for each in text.split(";\n") if each.strip()]
        return [said.sub(lambda word: self.words[word[0]], each) for each in statements]

    @property
    def owner(self) -> psycopg.Connection[tuple[Any, ...]]:
        return connect(self.settings, "test", autocommit=True)

    def with_deadline(self, seconds: float) -> Tortured:
        """The same with a shorter `swap_deadline_s`."""
        projections = self.settings.projections.model_copy(update={"swap_deadline_s": seconds})
        return replace(self, settings=self.settings.model_copy(update={"projections": projections}))

    def build(self, registered: Registered | None = None) -> builds.Build:
        """A verified build with 500 rows."""
        registered = registered or self.registered
        topic = TopicRange("orders", "id", (PartitionRange(0, 0, 0),))
        with self.owner as conn:
            made = builds.create(conn, registered, "app", [topic])
            builds.start_replay(conn, made, [topic])
            columns = registered.definition.table.columns.keys()
            said = [VALUES[name] for name in columns]
            conn.execute(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM generate_series(1, 500) AS g").format(
                    made.table,
                    sql.SQL(", ").join(map(sql.Identifier, columns)),
                    sql.SQL(", ").join(map(sql.SQL, said)),
                )
            )
            builds.load(conn, made, registered)
            builds.vacuum(conn, made)
            builds.save(conn, made, "verified")
        return made

    def cut_over(self, incoming: builds.Build) -> swap.Swapped:
        with self.owner as conn:
            done = swap.swap(conn, self.settings, [move_for(conn, incoming)], run=uuid.uuid4())
        self.last = done.entries[0]
        return done

    def swap_back(self) -> swap.Swapped:
        """Exchange the live build and the one that was live before."""
        name = self.registered.name
        with self.owner as conn:
            (live,) = builds.find(conn, name, ["live"])
            archived = builds.find(conn, name, ["archived"])[0]
            move = Move(archived, live, undoes=self.last)
            done = swap.swap(conn, self.settings, [move], run=uuid.uuid4(), reason="a test")
        self.last = done.entries[0]
        return done

    def proof(self) -> dict[str, Any]:
        """Everything the catalogs say, but for builds, and what still points into one."""
        seen: dict[str, Any] = dict(snapshot.read(self.admin))
        with self.admin.transaction():
            self.admin.execute("SET LOCAL search_path = ''")
            for name, query in BESIDES.items():
                seen[name] = sorted(map(repr, self.admin.execute(query.encode()).fetchall()))
        return seen

    def dump(self) -> list[str]:
        ran = subprocess.run(
            [client_program("pg_dump"), "--schema-only", "-N", "migrator*", self.url],
            capture_output=True,
            text=True,
            check=True,
        )
        return sorted(
            line
            for line in ran.stdout.splitlines()
            if not line.startswith(("\\restrict", "\\unrestrict"))
        )


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    said = []
    for key in sorted(before.keys() | after.keys(), key=str):
        if before.get(key) == after.get(key):
            continue
        one, other = before.get(key), after.get(key)
        if isinstance(one, list) and isinstance(other, list):
            said += [f"- {key} {x}" for x in one if x not in other]
            said += [f"+ {key} {x}" for x in other if x not in one]
        else:
            said.append(f"{key}: {one} / {other}")
    return said


# What the snapshot leaves to the machine, and the dependency graph, which notices what nobody thought of.
_THEIRS = (
    "nspname NOT IN ('information_schema', 'migrator') AND nspname !~ '^(pg_|migrator_build_)'"
)
_NAMED = "(pg_identify_object({0}classid, {0}objid, {0}objsubid))"
_PLAIN = r"regexp_replace({}, '(pg_toast_|ConstraintTrigger_[ac]?_?)[0-9]+', '\1N', 'g')"
_SAID = _PLAIN.format("({0}).type || ' ' || ({0}).identity")
_ONE, _OTHER = (_SAID.format(_NAMED.format(side)) for side in ("d.", "d.ref"))
BESIDES = {
    "where": f"""SELECT c.oid::regclass, spcname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        JOIN pg_tablespace t ON t.oid = reltablespace WHERE {_THEIRS}""",
    "inside": f"""SELECT c.oid::regclass, c.relkind, c.reloptions, c.relispopulated,
        (SELECT array_agg(said ORDER BY said) FROM aclexplode(c.relacl) AS a (one, other, what, given),
                LATERAL (SELECT concat(one::regrole, '>', other::regrole, what, given) AS said) AS s)
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "index columns": f"""SELECT c.oid::regclass, attnum, nullif(attstattarget, -1) FROM pg_attribute a
        JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
        WHERE c.relkind = 'i' AND {_THEIRS}""",
    "view columns": f"""SELECT c.oid::regclass, attname, attacl, pg_get_expr(adbin, adrelid),
               col_description(attrelid, attnum) FROM pg_attribute a
        JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
        LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
        WHERE c.relkind IN ('v', 'm') AND attnum > 0 AND {_THEIRS}""",
    "constraints": f"""SELECT conrelid::regclass, conname, contype, condeferrable, condeferred, convalidated,
               connoinherit, obj_description(k.oid, 'pg_constraint')
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE {_THEIRS}""",
    "replica identity": f"""SELECT c.oid::regclass FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        JOIN pg_namespace n ON n.oid = relnamespace WHERE indisreplident AND {_THEIRS}""",
    "statistics": f"""SELECT stxname, nullif(stxstattarget, -1), stxowner::regrole,
               obj_description(x.oid, 'pg_statistic_ext') FROM pg_statistic_ext x
        JOIN pg_namespace n ON n.oid = stxnamespace WHERE {_THEIRS}""",
    "foreign keys' triggers": f"""SELECT tgrelid::regclass, tgconstrrelid::regclass, tgfoid::regproc, tgenabled,
               tgdeferrable, tginitdeferred FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
        JOIN pg_namespace n ON n.oid = relnamespace WHERE tgisinternal AND {_THEIRS}""",
    "sequences": """SELECT schemaname, sequencename, last_value FROM pg_sequences
        WHERE schemaname <> 'migrator'""",
    "depends": f"""SELECT DISTINCT {_ONE}, {_OTHER}, d.deptype FROM pg_depend d
        WHERE (d.objid >= 16384 OR d.refobjid >= 16384)
          AND {_ONE} || {_OTHER} !~ 'migrator|pg_toast'""",
    # What still points from the tables that are kept into a build's schema.
    "leaks": f"""SELECT DISTINCT {_ONE}, {_OTHER} FROM pg_depend d
        WHERE {_OTHER} ~ 'migrator_build_' AND {_ONE} !~ 'migrator_build_|pg_toast|toast table'""",
}

VALUES = {
    "id": "g",
    "cust_id": "g % 50 + 1",
    "parent_id": "CASE WHEN g > 1 THEN g / 2 END",
    "ser": "g",
    "amount": "g",
    "qty": "g",
    "status": "'new'",
    "doc": "jsonb_build_object('a', g)",
    "note": "'n' || g % 7",
    "valid": "tstzrange('2026-01-01'::timestamptz + g * interval '1h', '2026-01-01'::timestamptz + (g + 1) * interval '1h')",
    "rk": "md5(g::text)::uuid",
    "updated_at": "'2026-01-01'::timestamptz",
}

BY_ADMIN = """
CREATE EXTENSION btree_gist;
CREATE SCHEMA app AUTHORIZATION $OWNER;
CREATE SCHEMA rep AUTHORIZATION $OTHER;
CREATE PUBLICATION $PUB_all FOR TABLES IN SCHEMA app;
ALTER DEFAULT PRIVILEGES FOR ROLE $OWNER IN SCHEMA app GRANT SELECT ON TABLES TO $READ;
GRANT USAGE ON SCHEMA app TO $READ, $CHAIN, $LEAF, $OTHER;
GRANT USAGE ON SCHEMA rep TO PUBLIC
"""
BY_OTHER = """
GRANT SELECT ON app.customers, $T TO $OTHER;
SET ROLE $OTHER;
CREATE VIEW rep.rv AS SELECT id, note FROM $T WHERE note <> 'hide';
GRANT SELECT ON rep.rv TO $LEAF;
RESET ROLE
"""
BEFORE = """
CREATE TABLE app.customers (id bigint PRIMARY KEY, name text);
INSERT INTO app.customers SELECT g, 'c' || g FROM generate_series(1, 50) g;
CREATE SEQUENCE app.free_seq;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.updated_at := now(); RETURN new; END$$;
CREATE FUNCTION app.aud() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE FUNCTION app.norm(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT lower($1)$$;
CREATE TABLE app.lines (order_id bigint NOT NULL, n int);
INSERT INTO app.lines SELECT g, 1 FROM generate_series(1, 500) g;
CREATE TABLE app.notes (order_rk uuid, order_id bigint);
INSERT INTO app.notes SELECT md5(g::text)::uuid, g FROM generate_series(1, 500) g;
CREATE TABLE app.audit (at timestamptz DEFAULT now(), what text)
"""

ATTACHED = """
ALTER TABLE $T SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = false);
ALTER TABLE $T SET TABLESPACE $SPACE;
ALTER TABLE $T ALTER note SET STATISTICS 500, ALTER cust_id SET (n_distinct = -0.3);
ALTER TABLE $T ALTER doc SET STORAGE EXTERNAL, ALTER note SET COMPRESSION pglz;
ALTER TABLE $T ALTER status SET DEFAULT 'new', ALTER ser SET DEFAULT nextval('app.free_seq');
CREATE SEQUENCE app.ser_seq OWNED BY $T.ser;
COMMENT ON COLUMN $T.qty IS 'how many';
ALTER TABLE $T ADD CONSTRAINT nv_check CHECK (qty < 1000000) NOT VALID;
ALTER TABLE $T ADD CONSTRAINT noinh CHECK (qty <> -5) NO INHERIT;
ALTER TABLE $T ADD CONSTRAINT "orders Uq" UNIQUE NULLS NOT DISTINCT (cust_id, ser) INCLUDE (note) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE $T ADD CONSTRAINT orders_ex EXCLUDE USING gist (cust_id WITH =, valid WITH &&) WHERE (status <> 'gone') DEFERRABLE;
CREATE UNIQUE INDEX orders_ri ON $T (rk);
CREATE INDEX orders_part ON $T (cust_id) WHERE status = 'new';
CREATE INDEX orders_expr ON $T (app.norm(note), (doc->>'a')) TABLESPACE $SPACE;
ALTER INDEX app.orders_expr ALTER COLUMN 1 SET STATISTICS 777;
CREATE INDEX orders_gin ON $T USING gin (doc jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX orders_brin ON $T USING brin (updated_at) WITH (pages_per_range = 16);
CREATE INDEX orders_clu ON $T (cust_id DESC NULLS LAST, id) INCLUDE (qty) WITH (fillfactor = 60);
ALTER INDEX app.$PKEY SET (fillfactor = 70);
ALTER INDEX app.$PKEY SET TABLESPACE $SPACE;
ALTER TABLE $T CLUSTER ON orders_clu;
ALTER TABLE $T REPLICA IDENTITY USING INDEX orders_ri;
CREATE STATISTICS app.orders_st (ndistinct, mcv) ON cust_id, status FROM $T;
ALTER STATISTICS app.orders_st SET STATISTICS 321;
CREATE STATISTICS app."orders Ste" ON (amount * 2), (lower(note)) FROM $T;
CREATE TRIGGER t_touch BEFORE INSERT OR UPDATE OF note, amount ON $T FOR EACH ROW WHEN (new.note IS DISTINCT FROM 'skip') EXECUTE FUNCTION app.touch();
CREATE TRIGGER t_stmt AFTER INSERT ON $T REFERENCING NEW TABLE AS nt FOR EACH STATEMENT EXECUTE FUNCTION app.aud();
CREATE CONSTRAINT TRIGGER t_con AFTER UPDATE ON $T DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.aud();
CREATE TRIGGER t_dis BEFORE DELETE ON $T FOR EACH ROW EXECUTE FUNCTION app.aud('x', 'y');
ALTER TABLE $T DISABLE TRIGGER t_dis, ENABLE ALWAYS TRIGGER t_stmt;
CREATE RULE r_log AS ON UPDATE TO $T WHERE new.note = 'log' DO ALSO INSERT INTO app.audit (what) VALUES ('upd ' || new.id);
CREATE RULE r_dis AS ON DELETE TO $T DO ALSO INSERT INTO app.audit (what) SELECT 'del' FROM $T LIMIT 1;
ALTER TABLE $T DISABLE RULE r_dis;
CREATE RULE r_other AS ON INSERT TO app.audit WHERE new.what = 'chk' DO ALSO UPDATE app.lines SET n = n WHERE order_id IN (SELECT id FROM $T WHERE id = -1);
ALTER TABLE $T ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p_own ON $T TO $OWNER USING (true) WITH CHECK (true);
CREATE POLICY p_read ON $T FOR SELECT TO $READ, $CHAIN USING (id IN (SELECT order_id FROM app.lines l WHERE l.order_id = id));
CREATE POLICY p_restr ON $T AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (status <> 'gone') WITH CHECK (qty > 0);
ALTER TABLE app.customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY p_cust ON app.customers USING (EXISTS (SELECT FROM $T o WHERE o.cust_id = customers.id)) WITH CHECK (true);
GRANT SELECT (id, cust_id), UPDATE (note) ON $T TO $READ;
GRANT SELECT ON $T TO $CHAIN WITH GRANT OPTION;
GRANT INSERT, TRIGGER ON $T TO PUBLIC;
REVOKE TRUNCATE ON $T FROM $OWNER;
SET ROLE $CHAIN;
GRANT SELECT ON $T TO $LEAF;
RESET ROLE;
ALTER TABLE $T ADD CONSTRAINT own_fk FOREIGN KEY (parent_id) REFERENCES $T (id) ON DELETE SET NULL;
ALTER TABLE $T ADD CONSTRAINT cust_fk FOREIGN KEY (cust_id) REFERENCES app.customers (id) ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE;
ALTER TABLE app.lines ADD CONSTRAINT lines_fk FOREIGN KEY (order_id) REFERENCES $T (id) ON DELETE CASCADE;
ALTER TABLE app.notes ADD CONSTRAINT notes_fk FOREIGN KEY (order_rk) REFERENCES $T (rk) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE app.notes ADD CONSTRAINT notes_nv FOREIGN KEY (order_id) REFERENCES $T (id) NOT VALID;
CREATE VIEW app.v1 WITH (security_barrier) AS SELECT id, cust_id, amount, qty AS tx, note FROM $T WHERE qty > 0 WITH LOCAL CHECK OPTION;
ALTER VIEW app.v1 RENAME COLUMN amount TO amt;
ALTER VIEW app.v1 ALTER COLUMN note SET DEFAULT 'vdef';
GRANT SELECT ON app.v1 TO $READ;
COMMENT ON VIEW app.v1 IS 'v1!';
COMMENT ON COLUMN app.v1.tx IS 'tx!';
CREATE VIEW app.v2 AS SELECT cust_id, sum(amt) s FROM app.v1 GROUP BY 1;
GRANT SELECT ON app.v2 TO $LEAF;
CREATE VIEW app.v3 WITH (security_invoker = true) AS SELECT o.id, o.note, c.name FROM $T o LEFT JOIN app.customers c ON c.id = o.cust_id GROUP BY o.id, c.name;
CREATE VIEW app.v4 AS SELECT 'app.$N'::regclass AS r, count(*) n FROM app.lines;
CREATE FUNCTION app.v3_ins() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
CREATE TRIGGER v3_i INSTEAD OF INSERT ON app.v3 FOR EACH ROW EXECUTE FUNCTION app.v3_ins();
CREATE FUNCTION app.f_str(b bigint) RETURNS text LANGUAGE sql STABLE AS 'SELECT note FROM $T WHERE id = b';
CREATE FUNCTION app.f_atomic(b bigint) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET work_mem = '8MB' BEGIN ATOMIC SELECT note FROM $T WHERE id = b; END;
GRANT EXECUTE ON FUNCTION app.f_atomic TO $READ;
COMMENT ON FUNCTION app.f_atomic IS 'fa';
CREATE PROCEDURE app.p_atomic(b bigint) LANGUAGE sql BEGIN ATOMIC UPDATE $T SET qty = qty + 1 WHERE id = b; DELETE FROM app.audit WHERE what = 'zz'; END;
CREATE FUNCTION app.f_plpg(b bigint) RETURNS text LANGUAGE plpgsql AS $$DECLARE r $T%ROWTYPE; BEGIN SELECT * INTO r FROM $T WHERE id = b; RETURN r.note; END$$;
CREATE PUBLICATION $PUB FOR TABLE $T (id, rk, cust_id, note) WHERE (rk IS NOT NULL), app.customers WITH (publish = 'insert, update');
COMMENT ON TABLE $T IS 'live ''orders''';
COMMENT ON CONSTRAINT $PKEY ON $T IS 'pk!';
COMMENT ON CONSTRAINT noinh ON $T IS 'chk!';
COMMENT ON CONSTRAINT lines_fk ON app.lines IS 'lfk';
COMMENT ON CONSTRAINT cust_fk ON $T IS 'cfk';
COMMENT ON CONSTRAINT orders_ex ON $T IS 'ex!';
COMMENT ON INDEX app.orders_expr IS 'ix!';
COMMENT ON TRIGGER t_touch ON $T IS 'trg!';
COMMENT ON POLICY p_read ON $T IS 'pol!';
COMMENT ON RULE r_log ON $T IS 'rule!';
COMMENT ON STATISTICS app.orders_st IS 'st!'
"""
SINCE_18 = """
ALTER TABLE $T ADD CONSTRAINT ne CHECK (qty <> -7) NOT ENFORCED;
ALTER TABLE $T RENAME CONSTRAINT $QTY TO qty_nn;
COMMENT ON CONSTRAINT qty_nn ON $T IS 'nn!'
"""

# Each takes one thing away, or changes it; the proof must notice every one.
LOSSES = """
ALTER TABLE $T SET (fillfactor = 81);
ALTER TABLE $T SET (toast.autovacuum_enabled = true);
ALTER TABLE $T SET TABLESPACE pg_default;
ALTER TABLE $T ALTER note SET STATISTICS 501;
ALTER TABLE $T ALTER cust_id SET (n_distinct = -0.4);
ALTER TABLE $T ALTER doc SET STORAGE EXTENDED;
ALTER TABLE $T ALTER note SET COMPRESSION DEFAULT;
ALTER TABLE $T ALTER status DROP DEFAULT;
ALTER TABLE $T REPLICA IDENTITY FULL;
ALTER TABLE $T SET WITHOUT CLUSTER;
ALTER TABLE $T NO FORCE ROW LEVEL SECURITY;
ALTER TABLE $T DISABLE ROW LEVEL SECURITY;
GRANT DELETE ON $T TO $READ;
REVOKE SELECT (id) ON $T FROM $READ;
REVOKE GRANT OPTION FOR SELECT ON $T FROM $CHAIN CASCADE;
GRANT TRUNCATE ON $T TO $OWNER;
ALTER POLICY p_read ON $T TO $READ;
ALTER POLICY p_restr ON $T USING (true);
ALTER POLICY p_cust ON app.customers USING (true);
DROP POLICY p_own ON $T;
COMMENT ON TABLE $T IS NULL;
COMMENT ON COLUMN $T.qty IS NULL;
COMMENT ON TRIGGER t_touch ON $T IS NULL;
COMMENT ON CONSTRAINT $PKEY ON $T IS NULL;
COMMENT ON CONSTRAINT cust_fk ON $T IS NULL;
COMMENT ON INDEX app.orders_expr IS NULL;
COMMENT ON RULE r_log ON $T IS NULL;
COMMENT ON POLICY p_read ON $T IS NULL;
COMMENT ON STATISTICS app.orders_st IS NULL;
ALTER TABLE $T ENABLE TRIGGER t_dis;
DROP TRIGGER t_con ON $T;
ALTER TABLE $T ENABLE RULE r_dis;
DROP RULE r_other ON app.audit;
ALTER INDEX app.orders_expr ALTER COLUMN 1 SET STATISTICS 10;
ALTER INDEX app.orders_expr SET TABLESPACE pg_default;
ALTER INDEX app.orders_gin SET (fastupdate = on);
DROP INDEX app.orders_brin;
ALTER STATISTICS app.orders_st SET STATISTICS 1;
DROP STATISTICS app."orders Ste";
ALTER PUBLICATION $PUB DROP TABLE $T;
ALTER PUBLICATION $PUB SET TABLE $T (id, rk), app.customers;
ALTER TABLE app.lines DROP CONSTRAINT lines_fk;
ALTER TABLE app.notes VALIDATE CONSTRAINT notes_nv;
ALTER TABLE $T VALIDATE CONSTRAINT nv_check;
ALTER TABLE $T ALTER CONSTRAINT cust_fk NOT DEFERRABLE;
ALTER TABLE $T DROP CONSTRAINT own_fk;
ALTER TABLE $T RENAME CONSTRAINT noinh TO zz;
ALTER TABLE $T DROP CONSTRAINT "orders Uq";
ALTER VIEW app.v1 RESET (security_barrier);
ALTER VIEW app.v1 ALTER note DROP DEFAULT;
ALTER VIEW app.v3 RESET (security_invoker);
DROP TRIGGER v3_i ON app.v3;
REVOKE SELECT ON app.v2 FROM $LEAF;
ALTER SEQUENCE app.ser_seq OWNED BY NONE;
ALTER FUNCTION app.f_atomic(bigint) RESET ALL;
REVOKE EXECUTE ON FUNCTION app.f_atomic FROM $READ;
DROP VIEW rep.rv;
ALTER TABLE $T OWNER TO postgres
"""


@contextmanager
def tortured(server: str, name: str, *, attach: bool = True) -> Iterator[Tortured]:
    """A database of its own on the server, with the live table and everything attached to it."""
    tag = uuid.uuid4().hex[:10]
    roles = {r: f'"{r} {tag}"' for r in ("OWNER", "READ", "CHAIN", "LEAF", "OTHER")}
    stranger = f"stranger_{tag}"
    space, database = f"fast_{tag}", f"test_{tag}"
    url = server.rpartition("/")[0] + f"/{database}"
    with psycopg.connect(server, autocommit=True) as admin:
        for role in roles.values():
            admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        admin.execute(f"GRANT {roles['CHAIN']}, {roles['OTHER']} TO {roles['OWNER']}".encode())
        admin.execute("SET allow_in_place_tablespaces = on")
        admin.execute(f"CREATE TABLESPACE {space} LOCATION ''".encode())
        admin.execute(f"GRANT CREATE ON TABLESPACE {space} TO {roles['OWNER']}".encode())
        admin.execute(f"CREATE DATABASE {database} OWNER {roles['OWNER']}".encode())
        try:
            with psycopg.connect(url, autocommit=True) as looking:
                registered = projection(name)
                quoted = sql.Identifier("app", name).as_string()
                words = {f"${r}": role for r, role in roles.items()} | {
                    "$STRANGER": stranger,
                    "$PUB": f"pub_{tag}",
                    "$SPACE": space,
                    "$PKEY": sql.Identifier(f"{name}_pkey").as_string(),
                    "$QTY": sql.Identifier(f"{name}_qty_not_null").as_string(),
                    "$T": quoted,
                    "$N": sql.Identifier(name).as_string(),
                }
                settings = load(
                    overrides={
                        "database": {
                            "url": make_conninfo(url, user=f"OWNER {tag}"),
                            "long_transaction_s": 600,
                        }
                    }
                )
                found = Tortured(settings, registered, looking, url, words)
                _attach(found, everything=attach)
                yield found
        finally:
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
            admin.execute(f"DROP TABLESPACE {space}".encode())
            for role in roles.values():
                admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def _attach(found: Tortured, *, everything: bool) -> None:
    for statement in found.filled(BY_ADMIN):
        found.admin.execute(statement.encode())
    with found.owner as owner:
        ledger.ensure(owner)
        for statement in found.filled(BEFORE):
            owner.execute(statement.encode())
        found.cut_over(found.build())
        if not everything:
            return
        attached = ATTACHED + (";" + SINCE_18 if found.admin.info.server_version >= 180000 else "")
        for statement in found.filled(attached):
            owner.execute(statement.encode())
    for statement in found.filled(BY_OTHER):
        found.admin.execute(statement.encode())
