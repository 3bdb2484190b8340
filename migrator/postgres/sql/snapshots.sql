-- Whose snapshot in this database a statement with CONCURRENTLY waits for.
WITH found AS (
    SELECT a.pid, NULL::text AS virtualtransaction, NULL::text AS mode, 'its snapshot' AS relation
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.backend_xmin IS NOT NULL
      AND a.pid NOT IN (%(own)s, pg_backend_pid())
      AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker')
      AND a.query !~* '^\s*vacuum'
)
