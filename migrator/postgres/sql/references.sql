-- The foreign keys that hold between a table (oid %(table)s) and others, for a look before the swap
-- whether they will hold on its successor: child, parent (oids), constraint, the columns of both.
SELECT k.conrelid::bigint, k.confrelid::bigint, k.conname,
       (SELECT array_agg(attname::text ORDER BY place) FROM unnest(k.conkey) WITH ORDINALITY AS n (attnum, place)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.attnum),
       (SELECT array_agg(attname::text ORDER BY place) FROM unnest(k.confkey) WITH ORDINALITY AS n (attnum, place)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n.attnum)
  FROM pg_constraint k
 WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0 AND %(table)s IN (k.conrelid, k.confrelid)
 ORDER BY k.conname
