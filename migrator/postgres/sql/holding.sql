-- Who holds a lock that conflicts with one of %(wanted)s, on the table, on the table of an index, or on a
-- partition or child of the table.
WITH RECURSIVE wanted AS (
    SELECT COALESCE(x.indrelid, c.oid) AS oid, w.conflicts
    FROM jsonb_to_recordset(%(wanted)s::jsonb) AS w (name text, conflicts text[])
    JOIN pg_class AS c ON c.oid = to_regclass(w.name)
    LEFT JOIN pg_index AS x ON x.indexrelid = c.oid
    UNION
    SELECT i.inhrelid, w.conflicts FROM wanted AS w JOIN pg_inherits AS i ON i.inhparent = w.oid
), found AS (
    SELECT l.pid, l.virtualtransaction, l.mode, l.relation::regclass::text AS relation
    FROM wanted AS w
    JOIN pg_locks AS l ON l.locktype = 'relation' AND l.relation = w.oid AND l.granted
                      AND l.mode = ANY (w.conflicts)
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid IS DISTINCT FROM %(own)s
)
