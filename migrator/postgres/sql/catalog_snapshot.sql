-- Every object that revisions make, one a row: kind, name, what it is part of, and what it is like.
-- Here are schemas, tables with all their parts, types and functions; catalog_snapshot_rest.sql has the rest.
-- Run with an empty search_path, so that every name in a definition is written in full.
-- %(left_out)s are tables, as schema.table in quoted form, that are left out with all their parts.
-- Left out besides: system schemas, migrator's own, members of extensions, and what only counts
-- objects or lies in the machine (oids, statistics, tablespaces, sequences' values).
WITH schema AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
     WHERE nspname NOT IN ('information_schema', 'migrator')
       AND nspname !~ '^(pg_|migrator_build_)'
),
member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
named AS (
    SELECT c.oid, c.relkind, c.relowner, c.relacl, c.relpersistence, c.reloptions, c.relreplident,
           c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relpartbound,
           c.reltype, c.relam, c.reloftype, c.reltoastrelid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
      FROM pg_class c JOIN schema n ON n.oid = c.relnamespace
     WHERE NOT EXISTS (SELECT FROM member
                        WHERE classid = 'pg_class'::regclass AND objid = c.oid)
),
relation AS (SELECT * FROM named WHERE name <> ALL (%(left_out)s)),
held AS (SELECT * FROM relation WHERE relkind IN ('r', 'p', 'f', 'v', 'm')),
privilege AS (
    SELECT o.classid, o.objid,
           jsonb_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                     || ' ' || a.privilege_type || CASE WHEN a.is_grantable THEN ' *' ELSE '' END
                     ORDER BY a.grantee::regrole::text, a.privilege_type) AS grants
      FROM (SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, coalesce(relacl,
                   acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
              FROM relation
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
            UNION ALL
            SELECT 'pg_namespace'::regclass, oid, coalesce(nspacl, acldefault('n', nspowner))
              FROM schema
            UNION ALL
            SELECT 'pg_type'::regclass, oid, coalesce(typacl, acldefault('T', typowner))
              FROM pg_type) AS o,
           aclexplode(o.acl) AS a
     GROUP BY o.classid, o.objid
),
object AS (
    SELECT 'schema' AS kind, quote_ident(nspname) AS name, NULL AS part_of,
           'pg_namespace'::regclass::oid AS classid, oid AS objid, 0 AS objsubid,
           nspowner AS owner, '{}'::jsonb AS facets
      FROM schema
     WHERE nspname <> 'public'
       AND NOT EXISTS (SELECT FROM member
                        WHERE classid = 'pg_namespace'::regclass AND objid = schema.oid)
    UNION ALL
    SELECT 'extension', quote_ident(extname), NULL, 'pg_extension'::regclass, oid, 0, NULL, '{}'
      FROM pg_extension WHERE extname <> 'plpgsql'
    UNION ALL
    SELECT CASE t.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                          WHEN 'f' THEN 'foreign table' ELSE 'table' END,
           t.name, NULL, 'pg_class'::regclass, t.oid, 0, t.relowner,
           jsonb_build_object(
               'definition', CASE WHEN t.relkind IN ('v', 'm') THEN pg_get_viewdef(t.oid) END,
               'persistence', CASE WHEN t.relpersistence = 'u' THEN 'unlogged' END,
               'access method', (SELECT amname FROM pg_am WHERE oid = t.relam AND amname <> 'heap'),
               'of type', format_type(nullif(t.reloftype, 0), NULL),
               'options', (SELECT jsonb_agg(o ORDER BY o)
                             FROM unnest(CASE t.relkind WHEN 'f' THEN (
                                      SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = t.oid)
                                         ELSE t.reloptions END) AS o),
               'toast options', (SELECT to_jsonb(x.reloptions) FROM pg_class x
                                  WHERE x.oid = t.reltoastrelid),
               'partitioned by', CASE WHEN t.relkind = 'p' THEN pg_get_partkeydef(t.oid) END,
               'partition', pg_get_expr(t.relpartbound, t.oid),
               'inherits', (SELECT jsonb_agg(inhparent::regclass::text ORDER BY inhseqno)
                              FROM pg_inherits WHERE inhrelid = t.oid),
               'row security', CASE WHEN t.relrowsecurity AND t.relforcerowsecurity THEN 'forced'
                                    WHEN t.relrowsecurity THEN 'enabled'
                                    WHEN t.relforcerowsecurity THEN 'forced, if it were enabled' END,
               'replica identity', CASE t.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing'
                                                       WHEN 'i' THEN 'an index' END,
               'server', (SELECT srvname FROM pg_foreign_table f
                            JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE ftrelid = t.oid))
      FROM held t
    UNION ALL
    SELECT 'column', t.name || '.' || quote_ident(a.attname), t.name, 'pg_class'::regclass, t.oid,
           a.attnum, NULL,
           jsonb_build_object(
               'type', format_type(a.atttypid, a.atttypmod),
               'null', CASE WHEN a.attnotnull THEN 'not null' ELSE 'nullable' END,
               'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
               'generated', CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
               'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
               'collation', CASE WHEN a.attcollation <> y.typcollation
                                 THEN a.attcollation::regcollation::text END,
               'storage', CASE WHEN a.attstorage <> y.typstorage THEN a.attstorage END,
               'compression', nullif(a.attcompression, ''),
               'statistics target', nullif(a.attstattarget, -1),
               'options', to_jsonb(coalesce(a.attoptions, a.attfdwoptions)),
               'grants', to_jsonb(a.attacl::text[]))
      FROM pg_attribute a
      JOIN relation t ON t.oid = a.attrelid AND t.relkind IN ('r', 'p', 'f')
      JOIN pg_type y ON y.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attislocal
    UNION ALL
    -- From 18 on a not null is a constraint as well; the column tells of it already.
    SELECT 'constraint', t.name || '.' || quote_ident(c.conname), t.name,
           'pg_constraint'::regclass, c.oid, 0, NULL,
           jsonb_build_object('definition', regexp_replace(pg_get_constraintdef(c.oid),
                                                           ' NOT VALID$', ''),
                              'validated', c.convalidated OR to_jsonb(c) @> '{"conenforced": false}',
                              'options', CASE WHEN x.indisreplident THEN 'replica identity' END,
                              'clustered on', nullif(x.indisclustered, false))
      FROM pg_constraint c JOIN held t ON t.oid = c.conrelid
      LEFT JOIN pg_index x ON x.indexrelid = c.conindid AND x.indrelid = c.conrelid
     WHERE c.contype NOT IN ('t', 'n') AND c.conislocal
    UNION ALL
    SELECT 'index', i.name, t.name, 'pg_class'::regclass, i.oid, 0, NULL,
           jsonb_build_object('definition', pg_get_indexdef(i.oid),
                              'valid', x.indisvalid AND x.indisready,
                              'options', CASE WHEN x.indisreplident THEN 'replica identity' END,
                              'clustered on', nullif(x.indisclustered, false))
      FROM pg_index x
      JOIN held t ON t.oid = x.indrelid
      JOIN named i ON i.oid = x.indexrelid AND NOT i.relispartition
     WHERE NOT EXISTS (SELECT FROM pg_constraint
                        WHERE conindid = i.oid AND contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT 'sequence', s.name, o.name || '.' || quote_ident(a.attname),
           'pg_class'::regclass, s.oid, 0, s.relowner,
           jsonb_build_object('type', format_type(q.seqtypid, NULL), 'start', q.seqstart,
                              'persistence', CASE s.relpersistence WHEN 'u' THEN 'unlogged' END,
                              'increment', q.seqincrement, 'min', q.seqmin, 'max', q.seqmax,
                              'cache', q.seqcache, 'cycle', q.seqcycle)
      FROM pg_sequence q
      JOIN relation s ON s.oid = q.seqrelid
      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
                           AND d.refclassid = 'pg_class'::regclass
                           AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
      LEFT JOIN named o ON o.oid = d.refobjid
      LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE o.name IS NULL OR o.name <> ALL (%(left_out)s)
    UNION ALL
    SELECT 'trigger', t.name || '.' || quote_ident(g.tgname), t.name,
           'pg_trigger'::regclass, g.oid, 0, NULL,
           jsonb_build_object('definition', pg_get_triggerdef(g.oid),
                              'enabled', CASE g.tgenabled WHEN 'O' THEN 'yes' WHEN 'D' THEN 'no'
                                                          WHEN 'R' THEN 'replica' ELSE 'always' END)
      FROM pg_trigger g JOIN held t ON t.oid = g.tgrelid
     WHERE NOT g.tgisinternal AND g.tgparentid = 0
    UNION ALL
    SELECT 'rule', t.name || '.' || quote_ident(r.rulename), t.name,
           'pg_rewrite'::regclass, r.oid, 0, NULL,
           jsonb_build_object('definition', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled)
      FROM pg_rewrite r JOIN held t ON t.oid = r.ev_class
     WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT 'policy', t.name || '.' || quote_ident(p.polname), t.name,
           'pg_policy'::regclass, p.oid, 0, NULL,
           jsonb_build_object(
               'for', CASE p.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert'
                                    WHEN 'w' THEN 'update' WHEN 'd' THEN 'delete' ELSE 'all' END,
               'permissive', p.polpermissive,
               'to', (SELECT jsonb_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END
                                       ORDER BY r::regrole::text) FROM unnest(p.polroles) AS r),
               'using', pg_get_expr(p.polqual, p.polrelid),
               'with check', pg_get_expr(p.polwithcheck, p.polrelid))
      FROM pg_policy p JOIN held t ON t.oid = p.polrelid
    UNION ALL
    SELECT 'statistics', quote_ident(n.nspname) || '.' || quote_ident(s.stxname), t.name,
           'pg_statistic_ext'::regclass, s.oid, 0, s.stxowner,
           jsonb_build_object('definition', pg_get_statisticsobjdef(s.oid))
      FROM pg_statistic_ext s
      JOIN schema n ON n.oid = s.stxnamespace
      JOIN held t ON t.oid = s.stxrelid
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           p.oid::regprocedure::text, NULL, 'pg_proc'::regclass, p.oid, 0, p.proowner,
           jsonb_build_object(
               'definition', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
               'transition', g.aggtransfn::text || ' ' || format_type(g.aggtranstype, NULL),
               'final', nullif(g.aggfinalfn::text, '-'),
               'start', g.agginitval,
               'kind', nullif(g.aggkind, 'n'),
               'sort operator', nullif(g.aggsortop, 0)::regoperator::text,
               'combine', nullif(g.aggcombinefn::text, '-'),
               'serialise', nullif(g.aggserialfn::text, '-'),
               'deserialise', nullif(g.aggdeserialfn::text, '-'),
               'moving', nullif(jsonb_build_array(
                   g.aggmtransfn::text, g.aggminvtransfn::text, g.aggmfinalfn::text,
                   g.aggminitval), '["-", "-", "-", null]'),
               'parallel', CASE WHEN p.prokind = 'a' THEN nullif(p.proparallel, 'u') END)
      FROM pg_proc p
      JOIN schema n ON n.oid = p.pronamespace
      LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
     WHERE NOT EXISTS (SELECT FROM member WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
       -- The functions that a range type brings with it.
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                          AND d.deptype = 'i')
    UNION ALL
    SELECT CASE y.typtype WHEN 'd' THEN 'domain' ELSE 'type' END,
           quote_ident(n.nspname) || '.' || quote_ident(y.typname), NULL,
           'pg_type'::regclass, y.oid, 0, y.typowner,
           jsonb_build_object(
               'labels', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder)
                            FROM pg_enum WHERE enumtypid = y.oid),
               'type', CASE WHEN y.typtype = 'd' THEN format_type(y.typbasetype, y.typtypmod) END,
               'null', CASE WHEN y.typnotnull THEN 'not null' END,
               'default', y.typdefault,
               'checks', (SELECT jsonb_agg(conname || ' ' || pg_get_constraintdef(oid)
                                           ORDER BY conname)
                            FROM pg_constraint WHERE contypid = y.oid AND contype = 'c'),
               'attributes', (SELECT jsonb_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
                                               ORDER BY a.attnum)
                                FROM pg_attribute a
                               WHERE a.attrelid = y.typrelid AND a.attnum > 0
                                 AND NOT a.attisdropped),
               'subtype', (SELECT format_type(rngsubtype, NULL) FROM pg_range
                            WHERE rngtypid = y.oid),
               'range', (SELECT jsonb_build_array(
                                    pg_describe_object('pg_opclass'::regclass, rngsubopc, 0),
                                    nullif(rngcollation, 0)::regcollation::text,
                                    rngcanonical::text, rngsubdiff::text)
                           FROM pg_range WHERE rngtypid = y.oid),
               'collation', CASE WHEN y.typtype = 'd' THEN nullif(y.typcollation, 0)::regcollation::text
                                 END,
               'base', CASE WHEN y.typtype = 'b'
                            THEN jsonb_build_array(y.typinput::text, y.typoutput::text,
                                                   y.typreceive::text, y.typsend::text,
                                                   y.typlen, y.typbyval, y.typalign, y.typstorage)
                            END)
      FROM pg_type y
      JOIN schema n ON n.oid = y.typnamespace
     WHERE (y.typtype IN ('e', 'd', 'r')
            OR y.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type WHERE typarray = y.oid)
            OR NOT y.typisdefined
            OR y.typtype = 'c' AND EXISTS (SELECT FROM pg_class
                                            WHERE oid = y.typrelid AND relkind = 'c'))
       AND NOT EXISTS (SELECT FROM member WHERE classid = 'pg_type'::regclass AND objid = y.oid)
)
SELECT o.kind, o.name, o.part_of,
       jsonb_strip_nulls(
           o.facets || jsonb_build_object(
               'comment', (SELECT description FROM pg_description d
                            WHERE d.classoid = o.classid AND d.objoid = o.objid
                              AND d.objsubid = o.objsubid AND o.kind <> 'extension'),
               'owner', o.owner::regrole::text)
           || CASE WHEN p.grants IS NULL OR o.objsubid > 0 OR o.owner IS NULL THEN '{}'
                   ELSE jsonb_build_object('grants', p.grants) END)
  FROM object o
  LEFT JOIN privilege p ON p.classid = o.classid AND p.objid = o.objid
 ORDER BY o.kind, o.name
