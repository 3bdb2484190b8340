-- The keys that a table can be paged by: btree, unique, over not-null columns; the primary key first.
SELECT array_agg(a.attname::text ORDER BY k.place),
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.place)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS am ON am.oid = c.relam AND am.amname = 'btree'
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull
WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary
HAVING count(a.attname) = count(*)
ORDER BY i.indisprimary DESC, i.indexrelid;
