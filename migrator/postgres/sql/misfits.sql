-- What hangs on a table (oid %(table)s) and names a column that its successor lacks, or has in another
-- type where that matters: object, column, and what becomes of it. The successor's columns are
-- %(columns)s and their types, as format_type writes them, %(types)s; a type may be null: not compared.
-- Last, whether it may be left behind: an index, a constraint or statistics, on a column that is gone.
-- %(made)s are the indexes and constraints that the definition gave, which concern nobody here.
WITH wanted AS (
    SELECT DISTINCT d.classid, d.objid, a.attname, format_type(a.atttypid, a.atttypmod) AS type
      FROM pg_depend d
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s AND d.refobjsubid > 0
       AND (d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass,
                          'pg_trigger'::regclass, 'pg_publication_rel'::regclass)
            OR d.classid = 'pg_constraint'::regclass
               AND (SELECT contype FROM pg_constraint WHERE oid = d.objid) = 'f'
            OR d.classid = 'pg_statistic_ext'::regclass
            OR d.classid = 'pg_constraint'::regclass AND (
               SELECT contype IN ('c', 'u', 'p', 'x') AND conname <> ALL (%(made)s)
                 FROM pg_constraint WHERE oid = d.objid)
            OR d.classid = 'pg_class'::regclass AND d.deptype = 'a' AND (
               SELECT relkind = 'S' OR relkind = 'i' AND relname <> ALL (%(made)s)
                 FROM pg_class WHERE oid = d.objid))
       AND NOT (d.classid = 'pg_trigger'::regclass
                AND (SELECT tgisinternal FROM pg_trigger WHERE oid = d.objid))
), shape AS (SELECT * FROM unnest(%(columns)s::text[], %(types)s::text[]) AS s (attname, type))
SELECT coalesce((SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite
                  WHERE w.classid = 'pg_rewrite'::regclass AND oid = w.objid AND rulename = '_RETURN'),
                pg_describe_object(w.classid, w.objid, 0)) AS object,
       w.attname,
       CASE WHEN s.attname IS NULL THEN 'is not there any more'
            ELSE format('is %%s instead of %%s', s.type, w.type) END,
       f.is_foreign_key IS FALSE OR w.classid = 'pg_statistic_ext'::regclass
       OR w.classid = 'pg_class'::regclass
  FROM wanted w
  LEFT JOIN shape s ON s.attname = w.attname
  LEFT JOIN LATERAL (SELECT contype = 'f' AS is_foreign_key FROM pg_constraint
                      WHERE w.classid = 'pg_constraint'::regclass AND oid = w.objid) AS f ON true
 WHERE s.attname IS NULL
    OR s.type IS NOT NULL AND s.type <> w.type
       AND (w.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass) OR f.is_foreign_key)
 ORDER BY 1, 2
