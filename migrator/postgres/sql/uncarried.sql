-- What hangs on a table and that no swap can carry to another: what it is, and what to do about it.
-- Known by a whitelist over pg_depend: whatever is neither part of the table nor known to be carried
-- (carried_*.sql) is named. %(table)s is the table's oid.
WITH RECURSIVE own (classid, objid) AS (
    SELECT 'pg_class'::regclass::oid, %(table)s::oid
    UNION
    SELECT 'pg_type'::regclass::oid, t.oid FROM pg_type t
     WHERE t.typrelid = %(table)s
        OR t.typelem = (SELECT reltype FROM pg_class WHERE oid = %(table)s) AND t.typcategory = 'A'
    UNION
    SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index WHERE indrelid = %(table)s
    UNION
    SELECT 'pg_constraint'::regclass::oid, oid FROM pg_constraint WHERE conrelid = %(table)s
    UNION
    SELECT 'pg_attrdef'::regclass::oid, oid FROM pg_attrdef WHERE adrelid = %(table)s
), me AS (
    -- Membership that lets us act as a role, in the words of the server's version.
    SELECT CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END AS may,
           current_setting('server_version_num')::int AS version
), live AS (
    SELECT c.*, format('%%I.%%I', n.nspname, c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(table)s
), dependent AS (
    SELECT DISTINCT d.classid, d.objid, d.objsubid, d.refclassid
      FROM pg_depend d JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
     WHERE NOT EXISTS (SELECT FROM own part WHERE part.classid = d.classid AND part.objid = d.objid)
), viewed AS (
    SELECT DISTINCT v.oid, v.relkind, v.relowner, v.relpersistence, v.relnamespace, d.refclassid,
           pg_describe_object('pg_class'::regclass, v.oid, 0) AS said, w.rulename
      FROM dependent d
      JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
      JOIN pg_class v ON v.oid = w.ev_class
), routine AS (
    SELECT p.*, pg_describe_object('pg_proc'::regclass, p.oid, 0) AS said, d.refclassid
      FROM dependent d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
), found (object, remedy) AS (
    SELECT CASE relkind WHEN 'p' THEN 'the table is partitioned' WHEN 'f' THEN 'the table is a foreign table'
                        ELSE 'the table is no plain table' END,
           'a projection is one plain table: move it away and let migrator build it'
      FROM live WHERE relkind <> 'r'
    UNION ALL
    SELECT 'the table is not logged', format('ALTER TABLE %%s SET LOGGED', name)
      FROM live WHERE relpersistence <> 'p'
    UNION ALL
    SELECT format('the table is of type %%s', reloftype::regtype), format('ALTER TABLE %%s NOT OF', name)
      FROM live WHERE reloftype <> 0
    UNION ALL
    SELECT format('the table is a partition of %%s', inhparent::regclass),
           format('ALTER TABLE %%s DETACH PARTITION %%s', inhparent::regclass, name)
      FROM live, pg_inherits WHERE inhrelid = live.oid AND relispartition
    UNION ALL
    SELECT format('the table inherits from %%s', inhparent::regclass),
           format('ALTER TABLE %%s NO INHERIT %%s', name, inhparent::regclass)
      FROM live, pg_inherits WHERE inhrelid = live.oid AND NOT relispartition
    UNION ALL
    SELECT format('table %%s inherits from it', inhrelid::regclass),
           format('ALTER TABLE %%s NO INHERIT %%s', inhrelid::regclass, name)
      FROM live, pg_inherits WHERE inhparent = live.oid
    UNION ALL
    SELECT format('column %%I is an identity', attname),
           format('ALTER TABLE %%s ALTER COLUMN %%I DROP IDENTITY: a projection''s values come from its events',
                  name, attname)
      FROM live JOIN pg_attribute ON attrelid = live.oid
     WHERE attnum > 0 AND NOT attisdropped AND attidentity <> ''
    UNION ALL
    SELECT format('column %%I is generated', attname),
           format('drop it from %%s, and let the fold set such a column', name)
      FROM live JOIN pg_attribute ON attrelid = live.oid
     WHERE attnum > 0 AND NOT attisdropped AND attgenerated <> ''
    UNION ALL
    SELECT said, 'drop it, or end the session that made it'
      FROM viewed WHERE relpersistence = 't'
    UNION ALL
    SELECT said || ', which uses the row type', 'name its columns one by one'
      FROM viewed WHERE relpersistence <> 't' AND relkind IN ('v', 'r') AND refclassid = 'pg_type'::regclass
    UNION ALL
    SELECT said, 'drop it, run the same command again, and create it anew after the cut-over'
      FROM viewed WHERE relpersistence <> 't' AND relkind NOT IN ('v', 'r')
    UNION ALL
    SELECT format('%%s, which %%s owns', said, relowner::regrole), format('ALTER ... OWNER TO a role whose member %%I is', current_user)
      FROM viewed, me
     WHERE relkind IN ('v', 'r', 'm') AND relpersistence <> 't' AND NOT pg_has_role(relowner, may)
    UNION ALL
    SELECT format('%%s, whose owner %%s may not create in its schema', said, relowner::regrole),
           format('GRANT CREATE ON SCHEMA %%s TO %%s', relnamespace::regnamespace, relowner::regrole)
      FROM viewed
     WHERE relkind = 'v' AND rulename = '_RETURN' AND relpersistence <> 't'
       AND NOT has_schema_privilege(relowner, relnamespace, 'CREATE')
    UNION ALL
    SELECT said || ', which uses the row type',
           'name its columns one by one: RETURNS TABLE (...), or parameters of plain types'
      FROM routine WHERE refclassid = 'pg_type'::regclass OR prosqlbody IS NULL
    UNION ALL
    SELECT format('%%s, which %%s owns', said, proowner::regrole), format('ALTER ... OWNER TO a role whose member %%I is', current_user)
      FROM routine, me WHERE NOT pg_has_role(proowner, may)
    UNION ALL
    SELECT format('%%s, whose owner %%s may not create in its schema', said, proowner::regrole),
           format('GRANT CREATE ON SCHEMA %%s TO %%s', pronamespace::regnamespace, proowner::regrole)
      FROM routine WHERE NOT has_schema_privilege(proowner, pronamespace, 'CREATE')
    UNION ALL
    SELECT format('publication %%I, which %%s owns', pubname, pubowner::regrole),
           format('ALTER ... OWNER TO a role whose member %%I is, or let it publish the schema', current_user)
      FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid
     WHERE prrelid = %(table)s AND NOT pg_has_role(pubowner, 'USAGE')
    UNION ALL
    SELECT format('foreign key %%I of table %%s, which %%s owns', conname, conrelid::regclass, relowner::regrole),
           format('ALTER ... OWNER TO a role whose member %%I is', current_user)
      FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
     WHERE contype = 'f' AND confrelid = %(table)s AND NOT pg_has_role(relowner, 'USAGE')
    UNION ALL
    SELECT format('foreign key %%I of the partitioned table %%s', conname, conrelid::regclass),
           'PostgreSQL 18 or newer, or drop it and add it anew after the cut-over'
      FROM me, pg_constraint JOIN pg_class c ON c.oid = conrelid
     WHERE contype = 'f' AND confrelid = %(table)s AND relkind = 'p' AND version < 180000
    UNION ALL
    SELECT DISTINCT format('foreign key %%I of %%s, of which a trigger is not enabled as usual',
                           conname, conrelid::regclass),
           'ENABLE TRIGGER ALL on both of its tables'
      FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint
     WHERE k.contype = 'f' AND %(table)s IN (k.conrelid, k.confrelid) AND tgenabled <> 'O'
    UNION ALL
    SELECT format('policy %%I on %%s, which %%s owns', polname, polrelid::regclass, relowner::regrole),
           format('ALTER ... OWNER TO a role whose member %%I is', current_user)
      FROM dependent d
      JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
      JOIN pg_class c ON c.oid = polrelid
     WHERE NOT pg_has_role(relowner, 'USAGE')
    UNION ALL
    SELECT format('statistics %%s.%%I, in another schema than the table', stxnamespace::regnamespace, stxname),
           format('ALTER STATISTICS %%s.%%I SET SCHEMA %%s', stxnamespace::regnamespace, stxname,
                  relnamespace::regnamespace)
      FROM live JOIN pg_statistic_ext ON stxrelid = live.oid WHERE stxnamespace <> relnamespace
    UNION ALL
    SELECT format('statistics %%s.%%I, which %%s owns', stxnamespace::regnamespace, stxname, stxowner::regrole),
           format('ALTER ... OWNER TO a role whose member %%I is', current_user)
      FROM pg_statistic_ext WHERE stxrelid = %(table)s AND NOT pg_has_role(stxowner, 'USAGE')
    UNION ALL
    SELECT format('index %%s, which is not valid', indexrelid::regclass), format('REINDEX INDEX %%s', indexrelid::regclass)
      FROM pg_index WHERE indrelid = %(table)s AND NOT (indisvalid AND indisready)
    UNION ALL
    SELECT DISTINCT 'grants made by ' || e.grantor::regrole, format('GRANT %%s TO %%I', e.grantor::regrole, current_user)
      FROM me, live, LATERAL (
           SELECT grantor FROM aclexplode(relacl)
           UNION SELECT x.grantor FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid = live.oid) e
     WHERE e.grantor <> relowner AND NOT pg_has_role(e.grantor, may)
    UNION ALL
    SELECT format('security label %%L of %%s', label, provider), 'SECURITY LABEL ... IS NULL, and set it anew after the cut-over'
      FROM pg_seclabel WHERE classoid = 'pg_class'::regclass AND objoid = %(table)s
    UNION ALL
    SELECT pg_describe_object(d.classid, d.objid, 0) || ', which depends on ' || pg_describe_object(d.refclassid, d.refobjid, 0),
           'ALTER ... NO DEPENDS ON EXTENSION, or take it out of the extension'
      FROM pg_depend d
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x')
       AND (EXISTS (SELECT FROM own WHERE own.classid = d.classid AND own.objid = d.objid)
            OR d.classid = 'pg_trigger'::regclass
               AND d.objid IN (SELECT oid FROM pg_trigger WHERE tgrelid = %(table)s))
    UNION ALL
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
           || CASE WHEN d.refclassid = 'pg_type'::regclass THEN ', which uses the row type' ELSE '' END,
           'drop it, run the same command again, and create it anew after the cut-over'
      FROM dependent d
     WHERE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass,
                             'pg_publication_rel'::regclass, 'pg_statistic_ext'::regclass)
       AND NOT (d.classid = 'pg_class'::regclass
                AND (SELECT relkind FROM pg_class WHERE oid = d.objid) IN ('t', 'S'))
       AND NOT (d.classid = 'pg_trigger'::regclass
                AND (SELECT tgisinternal OR tgrelid = %(table)s FROM pg_trigger WHERE oid = d.objid))
       AND NOT (d.classid = 'pg_constraint'::regclass AND d.refclassid <> 'pg_type'::regclass
                AND (SELECT contype FROM pg_constraint WHERE oid = d.objid) = 'f')
)
SELECT DISTINCT object, remedy FROM found ORDER BY object
