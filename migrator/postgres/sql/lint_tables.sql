-- What lint knows of each named relation, in the order of the names; NULLs where there is none.
-- A table that was never analysed has -1 rows: then its size is taken for rows of 100 bytes.
WITH named AS (
    SELECT name, n, to_regclass(name) AS oid
    FROM unnest(%(names)s::text[]) WITH ORDINALITY AS given (name, n)
)
SELECT size.rows, size.bytes,
       COALESCE((SELECT array_agg(i.columns) FROM (
           SELECT to_jsonb(array_agg(a.attname::text ORDER BY k.at)) AS columns
           FROM pg_index x
           CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, at)
           JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
           WHERE x.indrelid = named.oid AND x.indisvalid AND x.indpred IS NULL
           AND k.at <= x.indnkeyatts
           GROUP BY x.indexrelid) i), '{}'),
       COALESCE((SELECT array_agg(a.attname::text) FROM pg_attribute a
           WHERE a.attrelid = named.oid AND a.attnum > 0 AND a.attnotnull), '{}'),
       COALESCE((SELECT jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod))
           FROM pg_attribute a
           WHERE a.attrelid = named.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}')
FROM named
LEFT JOIN LATERAL (
    SELECT sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples::float8
                    ELSE pg_relation_size(c.oid) / 100.0 END) AS rows,
           sum(pg_relation_size(c.oid))::bigint AS bytes
    FROM pg_class c
    WHERE c.relkind IN ('r', 'm', 'p') AND (c.oid = named.oid OR c.oid IN (
        SELECT p.relid FROM pg_partition_tree(named.oid) p))
    AND NOT (c.relkind = 'p' AND c.reltuples < 0)
) size ON true
ORDER BY named.n;
