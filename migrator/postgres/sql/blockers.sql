-- Describe the sessions of CTE `found` (pid, virtualtransaction, mode, relation): one row each, the
-- oldest transaction first. pid 0 or null is a prepared transaction. A query that may hold a password is not shown.
SELECT f.pid,
       COALESCE(a.usename, p.owner) AS "user",
       a.application_name AS application,
       COALESCE(host(a.client_addr), CASE WHEN a.pid IS NOT NULL THEN 'local' END) AS client,
       COALESCE(a.state, CASE WHEN p.gid IS NOT NULL THEN 'prepared' END) AS state,
       a.xact_start AS transaction_start,
       extract(epoch FROM clock_timestamp() - COALESCE(a.xact_start, p.prepared))::float8 AS transaction_age_s,
       CASE WHEN p.gid IS NOT NULL THEN 'PREPARE TRANSACTION ' || quote_literal(p.gid)
            WHEN a.query ~* 'password' THEN '(a query that names a password)'
            ELSE left(regexp_replace(a.query, '\s+', ' ', 'g'), 120) END AS query,
       f.modes,
       f.relation,
       CASE WHEN p.gid IS NOT NULL THEN 'prepared transaction' ELSE a.backend_type END AS backend_type,
       COALESCE(r.rolsuper, false) AS superuser,
       p.gid
FROM (SELECT pid, virtualtransaction,
             array_remove(array_agg(DISTINCT mode), NULL) AS modes,
             string_agg(DISTINCT relation, ', ') AS relation
      FROM found GROUP BY pid, virtualtransaction) AS f
LEFT JOIN pg_stat_activity AS a ON a.pid = f.pid
LEFT JOIN pg_roles AS r ON r.oid = a.usesysid
LEFT JOIN pg_prepared_xacts AS p
       ON f.pid IS NULL AND p.transaction::text = split_part(f.virtualtransaction, '/', 2)
ORDER BY COALESCE(a.xact_start, p.prepared) NULLS LAST, f.pid
