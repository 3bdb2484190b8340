-- The columns of %(table)s in their order, with what is needed to compare them; no row where it is gone.
WITH RECURSIVE
own AS (
    SELECT a.attnum, a.attname::text AS name, a.atttypid AS type,
           coalesce(a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]), false) AS is_key
    FROM pg_attribute a
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
),
-- A domain may be over another one.
based AS (
    SELECT own.* FROM own
    UNION ALL
    SELECT b.attnum, b.name, t.typbasetype, b.is_key
    FROM based b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.name, b.is_key,
       -- -1, not NULL: "character" alone would be char(1).
       format_type(t.oid, -1) AS type,
       t.oid::bigint,
       (CASE t.typcategory WHEN 'A' THEN t.typelem ELSE 0 END)::bigint AS element,
       t.typcategory = 'S' AS is_string
FROM based b JOIN pg_type t ON t.oid = b.type
WHERE t.typtype <> 'd'
ORDER BY b.attnum
