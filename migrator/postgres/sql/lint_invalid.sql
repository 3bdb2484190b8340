-- Names of the INVALID indexes that an interrupted CREATE INDEX CONCURRENTLY has left.
SELECT DISTINCT unnest(ARRAY[i.relname::text, n.nspname || '.' || i.relname])
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE NOT x.indisvalid AND i.relkind = 'i';
