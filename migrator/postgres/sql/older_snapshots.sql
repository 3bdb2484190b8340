-- Sessions whose snapshot may be older than the rows of these builds: pid, user, application, state, age
-- in seconds. %(builds)s are their numbers. A snapshot is no older than its transaction, and sees
-- what committed before its xmin.
SELECT a.pid, a.usename, a.application_name, a.state,
       round(extract(epoch FROM clock_timestamp() - a.xact_start))
  FROM pg_stat_activity a
 WHERE a.backend_xmin IS NOT NULL
   -- Of other roles' sessions all this is null, unless we may read every one's statistics.
   AND coalesce(a.backend_type, 'client backend') = 'client backend' AND a.usesysid IS NOT NULL
   AND a.datname = current_database()
   AND a.pid <> pg_backend_pid()
   AND EXISTS (SELECT FROM migrator.build b
                WHERE b.build = ANY (%(builds)s) AND coalesce(a.xact_start, b.changed_at) <= b.changed_at
                  AND age(a.backend_xmin) >= age(b.xmin))
 ORDER BY a.xact_start
