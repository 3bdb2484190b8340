-- Whom session %(pid)s waits for now, and on what; no row where it does not wait for a lock.
WITH waiter AS MATERIALIZED (
    SELECT pid FROM pg_stat_get_activity(%(pid)s::int) WHERE wait_event_type = 'Lock'
), pids AS MATERIALIZED (
    SELECT DISTINCT NULLIF(unnest(pg_blocking_pids(w.pid)), 0) AS pid FROM waiter AS w
), locks AS MATERIALIZED (
    SELECT *, (locktype, database, relation, page, tuple, virtualxid, transactionid, classid, objid,
               objsubid)::text AS object
    FROM pg_locks WHERE EXISTS (SELECT FROM waiter)
), found AS (
    SELECT p.pid, l.virtualtransaction, l.mode,
           CASE w.locktype WHEN 'virtualxid' THEN 'its snapshot' WHEN 'transactionid' THEN 'a row'
                ELSE COALESCE(w.relation::regclass::text, w.locktype) END AS relation
    FROM pids AS p
    CROSS JOIN (SELECT k.* FROM locks AS k JOIN waiter USING (pid) WHERE NOT k.granted) AS w
    LEFT JOIN locks AS l ON l.object = w.object AND l.granted AND l.pid IS NOT DISTINCT FROM p.pid
)
