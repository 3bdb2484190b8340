-- What hangs on a table and would not follow a swap, one description a row; empty means: nothing.
-- %(table)s is the table's oid. Known by a whitelist: whatever is not part of the table is named.
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
)
SELECT DISTINCT coalesce(
           -- A view hangs on a table by its rule; people know it by its own name.
           (SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite
             WHERE d.classid = 'pg_rewrite'::regclass AND oid = d.objid AND rulename = '_RETURN'),
           pg_describe_object(d.classid, d.objid, 0)) AS attachment
  FROM pg_depend d
  JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
 WHERE NOT EXISTS (SELECT FROM own part WHERE part.classid = d.classid AND part.objid = d.objid)
   AND NOT (d.classid = 'pg_class'::regclass
            AND (SELECT relkind FROM pg_class WHERE oid = d.objid) = 't')
   AND NOT (d.classid = 'pg_trigger'::regclass
            AND (SELECT tgisinternal FROM pg_trigger WHERE oid = d.objid))
UNION ALL
SELECT pg_describe_object('pg_constraint'::regclass, oid, 0)
  FROM pg_constraint WHERE conrelid = %(table)s AND contype = 'f'
UNION ALL
SELECT 'row security' FROM pg_class WHERE oid = %(table)s AND (relrowsecurity OR relforcerowsecurity)
UNION ALL
SELECT 'storage parameters ' || array_to_string(reloptions, ', ')
  FROM pg_class WHERE oid = %(table)s AND reloptions IS NOT NULL
UNION ALL
SELECT 'a replica identity of its own'
  FROM pg_class WHERE oid = %(table)s AND relreplident NOT IN ('d')
UNION ALL
SELECT 'tablespace ' || spcname
  FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = %(table)s
UNION ALL
SELECT 'inheritance from or by another table'
 WHERE EXISTS (SELECT FROM pg_inherits WHERE %(table)s IN (inhrelid, inhparent))
UNION ALL
SELECT 'grants made by ' || grantor::regrole || ', not by the owner'
  FROM pg_class c, aclexplode(c.relacl) WHERE c.oid = %(table)s AND grantor <> c.relowner
UNION ALL
SELECT 'settings of column ' || attname
  FROM pg_attribute
 WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
   AND (attoptions IS NOT NULL OR coalesce(attstattarget, -1) >= 0)
ORDER BY attachment
