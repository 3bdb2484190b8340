-- What the planner knows of %(table)s: rows (-1: nothing), columns, and those without statistics.
SELECT c.reltuples::bigint,
       count(*)::int,
       -- Of an empty table there are none.
       coalesce(array_agg(a.attname::text ORDER BY a.attnum) FILTER (
           WHERE c.reltuples > 0 AND s.attname IS NULL AND coalesce(a.attstattarget, -1) <> 0
       ), '{}')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
WHERE c.oid = %(table)s::regclass
GROUP BY c.reltuples
