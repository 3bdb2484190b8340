-- One text that is another as soon as something was added to, taken from or changed on the tables
-- %(tables)s, or what hangs on them: the row versions of all that the carrying statements are made of.
-- It is read under locks that readers wait behind, and so says whether those statements still hold
-- in a fraction of the time that it takes to make them.
WITH own (classid, objid) AS (
    SELECT 'pg_class'::regclass::oid, oid FROM unnest(%(tables)s::oid[]) AS oid
    UNION ALL
    SELECT 'pg_type'::regclass::oid, unnest(ARRAY[t.oid, t.typarray])
      FROM pg_class c JOIN pg_type t ON t.oid = c.reltype WHERE c.oid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index WHERE indrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT 'pg_constraint'::regclass::oid, oid FROM pg_constraint WHERE conrelid = ANY (%(tables)s::oid[])
), depend AS (
    SELECT d.* , d.xmin::text AS at
      FROM pg_depend d JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
), mark (at) AS (
    SELECT concat_ws(' ', 'd', classid, objid, objsubid, refobjid, refobjsubid, deptype, at) FROM depend
    UNION ALL
    SELECT concat_ws(' ', 'a', attrelid, attnum, xmin) FROM pg_attribute WHERE attrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT concat_ws(' ', 'c', oid, xmin) FROM pg_class
     WHERE oid = ANY (%(tables)s::oid[])
        OR oid IN (SELECT objid FROM depend WHERE classid = 'pg_class'::regclass)
    UNION ALL
    SELECT concat_ws(' ', 'w', w.oid, w.xmin, v.xmin) FROM pg_rewrite w JOIN pg_class v ON v.oid = w.ev_class
     WHERE w.oid IN (SELECT objid FROM depend WHERE classid = 'pg_rewrite'::regclass)
    UNION ALL
    SELECT concat_ws(' ', 'p', oid, xmin) FROM pg_proc
     WHERE oid IN (SELECT objid FROM depend WHERE classid = 'pg_proc'::regclass)
    UNION ALL
    SELECT concat_ws(' ', 'y', oid, xmin) FROM pg_policy
     WHERE oid IN (SELECT objid FROM depend WHERE classid = 'pg_policy'::regclass)
    UNION ALL
    SELECT concat_ws(' ', 't', oid, xmin) FROM pg_trigger WHERE tgrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT concat_ws(' ', 'k', oid, xmin) FROM pg_constraint
     WHERE conrelid = ANY (%(tables)s::oid[]) OR confrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT concat_ws(' ', 'b', r.oid, r.xmin, p.xmin)
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
     WHERE prrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT concat_ws(' ', 's', oid, xmin) FROM pg_statistic_ext WHERE stxrelid = ANY (%(tables)s::oid[])
    UNION ALL
    SELECT concat_ws(' ', 'g', oid, xmin) FROM pg_default_acl
)
SELECT string_agg(at, E'\n' ORDER BY at) FROM mark
